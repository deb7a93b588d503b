"""Mean and covariance of features' channels: what recorded and imitated activations are compared by."""

from dataclasses import dataclass

import torch
from torch import Tensor

FLOOR = 0.01
"""Least variance that counts, as a share of the channels' mean variance: dead channels must not outweigh the others."""
LEAST = 1e-12
"""Variance below which differences are rounding errors."""


def channel_rows(features: Tensor) -> Tensor:
    """Features (N, C, ...) as float32 rows of channels: (N times the number of places, C)."""
    return features.float().flatten(2).transpose(1, 2).flatten(0, 1) if features.dim() > 2 else features.float()


@dataclass(frozen=True)
class Moments:
    """Mean (C,) and covariance (C, C) of the channels of some features."""

    mean: Tensor
    covariance: Tensor

    @property
    def deviation(self) -> Tensor:
        """Of each channel (C,), not below a tenth of the channels' typical one, and not zero where nothing varies."""
        variance = self.covariance.diagonal()
        return (variance + FLOOR * variance.mean()).clamp_min(LEAST).sqrt()

    @property
    def correlation(self) -> Tensor:
        """The covariance (C, C) in units of the deviations."""
        return self.covariance / torch.outer(self.deviation, self.deviation)

    def standardized(self, features: Tensor) -> Tensor:
        """Features (N, C, ...) in float32, each channel about its mean and in its deviation."""
        shape = (1, -1, *(1 for _ in features.shape[2:]))
        standardized: Tensor = (features.float() - self.mean.view(shape)) / self.deviation.view(shape)
        return standardized

    def distance(self, other: "Moments") -> tuple[Tensor, Tensor]:
        """How far the means and the covariances are apart, in deviations of this one's channels.

        Mean square over the channels, and squared Frobenius norm over the number of channels; both scalars.
        """
        shift = (other.mean - self.mean) / self.deviation
        excess = (other.covariance - self.covariance) / torch.outer(self.deviation, self.deviation)
        return shift.square().mean(), excess.square().sum() / len(shift)

    def batch_distance(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """As `distance`, of the features (N, ...) of a batch, N at least 2, about this one's mean; differentiable.

        Each square is a product of the two halves of the batch: so the noise of a small batch adds nothing on average,
        and pulls the features nowhere (squares of the whole batch's would shrink them).
        """
        first, second = ((channel_rows(half) - self.mean) / self.deviation for half in features.tensor_split(2))
        shift = (first.mean(0) * second.mean(0)).mean()
        one, other = (rows.mT @ rows / len(rows) - self.correlation for rows in (first, second))
        return shift, (one * other).sum() / len(self.mean)


class RunningMoments:
    """Moments of features that come in batches, each counted alike; accumulated in float64."""

    def __init__(self) -> None:
        self._rows = 0
        self._sum = self._products = torch.zeros((), dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Take in features (N, C, ...)."""
        rows = channel_rows(features).double()
        self._rows += len(rows)
        self._sum = self._sum.to(rows.device) + rows.sum(0)
        self._products = self._products.to(rows.device) + rows.mT @ rows

    def moments(self) -> Moments:
        """Of all that came so far; at least one row."""
        mean = self._sum / self._rows
        return Moments(mean.float(), (self._products / self._rows - torch.outer(mean, mean)).float())
