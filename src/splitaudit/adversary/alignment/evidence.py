"""What the server judges shadow layers by: how alike their features are to those of the clients, stage by stage.

Nothing here knows a label, a client's image or a client's layer: any server can compute it.
"""

from collections.abc import Iterable
from functools import cached_property

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from splitaudit.adversary.alignment.inverse import LinearInverse, linear_inverse
from splitaudit.adversary.moments import Moments, RunningMoments
from splitaudit.adversary.recorder import Recording
from splitaudit.config import AlignmentConfig
from splitaudit.data import pixel_statistics
from splitaudit.models import Normalize
from splitaudit.models.stages import Stages
from splitaudit.randomness import derive_generator
from splitaudit.runtime import Runtime

Features = tuple[Tensor, ...]
"""The activations at the cut, and the features after each stage of the server layers."""

HELD_OUT = 8
"""One image in so many, at least 8, and one recorded sample in so many, judge and are not fitted to; but the streaming
moments of the cut, which look back further, have seen some of these samples."""
BATCH = 128
INVERSE_STEPS = 150
"""At most, of each map that the first inverse is the mean of: a short fit of shadow layers takes fewer, and longer fits
of one map brought nothing that more of them do not."""
VECTOR_WEIGHT = 0.1
"""Of the covariance of a stage whose features are vectors: with one row a sample, it is known poorly."""


class Evidence:
    """The recording, the server's images and its trained layers, a part of them held out.

    `layers` are the server's, in eval mode from now on. `images` are the server's own, uint8 (M, C, H, W), M >= 16.
    """

    def __init__(
        self, recording: Recording, layers: fx.GraphModule, images: Tensor, config: AlignmentConfig, runtime: Runtime
    ) -> None:
        server = Stages(layers)
        self.runtime = runtime
        self._inverse_steps = max(1, min(INVERSE_STEPS, config.steps // 4))
        self.layers = layers.eval().requires_grad_(False)
        self._tapped = server.tap(server.spread(config.stages)).eval()
        order = torch.randperm(len(images), generator=derive_generator(runtime.seed, "held-out images"))
        held = max(8, len(images) // HELD_OUT)
        self.images, self.held_images = images[order[held:]], images[order[:held]]
        self.normalize = Normalize(*pixel_statistics(self.images))
        """Standardises pixels (N, C, H, W) of such images."""
        runtime.place(self.normalize)
        # What was recorded in bf16 may be looked at in float32, as a later attack is told to.
        recorded = recording.activations.float() if runtime.precision == "float32" else recording.activations
        judging = torch.arange(len(recorded), device=recorded.device) % HELD_OUT == 0
        self.activations, self.held_activations = recorded[~judging], recorded[judging]
        self.batch = max(1, len(self.activations) // recording.batches)
        """How many of the activations, about, are of one batch."""
        # At the cut the streaming moments, since they look back further than the recorded batches.
        self.references = [recording.moments, *self._moments(self.activations)[1:]]
        self._held = self._moments(self.held_activations)
        self._weights = [1.0, *(VECTOR_WEIGHT if features.dim() == 2 else 1.0 for features in self._sample()[1:])]

    @cached_property
    def inverse(self) -> LinearInverse:
        """From standardised activations, which must be maps, to coarse pictures; made when first asked for."""
        height, width = self.activations.shape[2:]
        small = [
            F.adaptive_avg_pool2d(self.normalize(self.runtime.pixels(batch)), (height, width))
            for batch in self.images.split(BATCH)
        ]
        standardized = self.references[0].standardized(self.activations)
        return linear_inverse(standardized, torch.cat(small), self._inverse_steps, self.runtime.seed)

    def features(self, activations: Tensor) -> Features:
        """The activations (N, ...), and what the server layers make of them after each stage."""
        with self.runtime.autocast():
            return activations, *self._tapped(activations)

    def imitate(self, shadow: nn.Module, pixels: Tensor) -> Tensor:
        """The activations of images (N, C, H, W), through shadow layers."""
        with self.runtime.autocast():
            activations: Tensor = shadow(pixels)
        return activations

    def total(self, distances: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
        """The distances of means and covariances, at the cut and after each stage, as one number."""
        return torch.stack(
            [shift + weight * excess for weight, (shift, excess) in zip(self._weights, distances, strict=True)]
        ).sum()

    @torch.no_grad()
    def score(self, shadow: nn.Module, images: Tensor | None = None) -> float:
        """How unlike the held-out activations those of shadow layers, in eval mode, are: on `images`, or held-out ones.

        The distances of `Moments.distance` at the cut and after each stage, added; 0 for the same statistics.
        """
        shown = (self.held_images if images is None else images).split(BATCH)
        activations = torch.cat([self.imitate(shadow, self.runtime.pixels(batch)) for batch in shown])
        found = self._moments(activations)
        return float(self.total(held.distance(own) for held, own in zip(self._held, found, strict=True)))

    def _sample(self) -> Features:
        with torch.no_grad():
            return self.features(self.activations[:2])

    @torch.no_grad()
    def _moments(self, activations: Tensor) -> list[Moments]:
        running = [RunningMoments() for _ in self._sample()]
        for batch in activations.split(BATCH):
            for accumulator, features in zip(running, self.features(batch), strict=True):
                accumulator.add(features)
        return [accumulator.moments() for accumulator in running]
