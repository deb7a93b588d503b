"""Everything that plugs into `craft`, by name, and small functions to attack: what the tests run over."""

import torch
from torch import Tensor, nn

from splitaudit.attacks.gradients import GradientRule, averaged, momentum, plain, variance_tuned
from splitaudit.attacks.objectives import (
    Objective,
    cosine_shift,
    cross_entropy,
    dispersion_reduction,
    dlr,
    feature_disruption,
    feature_distance,
    intermediate_level,
    margin,
)
from splitaudit.attacks.starts import STARTS as NAMED_STARTS
from splitaudit.attacks.starts import Start, signs
from splitaudit.attacks.transforms import diverse, spectrum, translation_invariant

SIZE = 6

RULES: dict[str, GradientRule] = {
    "plain": plain,
    "momentum": momentum(),
    "nesterov": momentum(nesterov=True, decay=0.5),
    "variance": variance_tuned(neighbours=2),
    "vni": momentum(variance_tuned(neighbours=2), nesterov=True),
    "averaged": averaged(copies=2),
    "spectrum": spectrum(copies=2),
    "spectrum-momentum": momentum(spectrum(copies=2)),
    "diverse": diverse(),
    "translation": translation_invariant(),
    "all": momentum(
        variance_tuned(diverse(spectrum(translation_invariant(), copies=2), probability=1.0), neighbours=2),
        nesterov=True,
    ),
}
STARTS: dict[str, Start] = {**NAMED_STARTS, "signs": signs}
LABEL_FREE: dict[str, Objective] = {
    "cosine": cosine_shift,
    "distance": feature_distance,
    "dispersion": dispersion_reduction,
    "disruption": feature_disruption,
}
LABELLED = {"cross-entropy": cross_entropy, "margin": margin, "dlr": dlr}
OBJECTIVES = [*LABEL_FREE, "guided", *LABELLED]


class Network(nn.Module):
    """A fixed random network in float64: features of two layers, or five logits."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
        self.double().eval()
        for parameter in self.parameters():
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.stem(x))
        return out

    def layers(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both layers' features."""
        stem = self.stem(x)
        return stem, self.head(stem)


def images(n: int, seed: int = 0) -> Tensor:
    """Random ones."""
    return torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def objective_for(name: str, x: Tensor) -> Objective:
    """The named objective; labels and guide, where it needs them, depend on each image alone."""
    if name in LABELLED:
        return LABELLED[name]((x.flatten(1).sum(1) * 1e6).long() % 5)
    if name == "guided":
        return intermediate_level((x + 0.1 * (7 * x).cos()).clamp(0, 1))
    return LABEL_FREE[name]
