"""What `defense` can say about the training itself: the defences of a client's split steps, and their settings."""

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from splitaudit.section import Section

Prevention = Literal["noise", "nopeek", "diverse"]
Detector = Literal["splitguard", "faint-steps", "trapezoid", "gradient-decomposition", "scrutinizer", "splitout"]
DuringDefense = Literal[Prevention, Detector]
"""In this order they take part in a step, whatever the order they are named in."""


class CalibrationConfig(Section):
    """The honest training that a client plays through by itself, to learn what honest gradients look like."""

    iterations: int = Field(100, ge=60)
    """Fewer tell too little of how far honest gradients stray."""
    false_alarms: float = Field(0.01, gt=0, lt=1)
    """Probability of an alarm in a whole training with an honest server, which the thresholds are made for."""


class GradientDecompositionConfig(Section):
    """`gradient-decomposition`: how much of the returned gradient lies along the activations."""

    repair: bool = False
    """Hand on the gradient without the excess over what honest servers return. It has not made models safer so far."""


class TrapezoidConfig(Section):
    """`trapezoid`: whether the losses at two points agree with the gradients returned there."""

    every: PositiveInt = 10
    """Iterations from one check to the next."""
    distance: PositiveFloat = Field(0.1, le=1)
    """How far apart the two points lie, in deviations of the activations."""
    direction: Literal["random", "activations"] = "random"
    """`activations`: along o1 - mean(o1)."""


class FaintStepsConfig(Section):
    """`faint-steps`: steps whose loss is made small on its way to the server."""

    share: float = Field(0.05, gt=0, le=0.5)
    """Of the steps, chosen at random."""
    weight: float = Field(1e-5, gt=0, lt=1)
    """What their loss is multiplied with. The server learns as much less from them; the clients learn as always."""


class SplitGuardConfig(Section):
    """`splitguard`: gradients of batches with false labels."""

    share: float = Field(0.1, gt=0, lt=1)
    """Of batches, after the warm-up, that are sent with false labels."""
    warm_up: NonNegativeInt = 20
    """Iterations before the first of them."""
    multiplier: PositiveFloat = 5.0
    exponent: PositiveFloat = 2.0
    """Both shape the score (`alpha` and `beta` in the paper)."""
    threshold: float = Field(0.9, gt=0, lt=1)
    """A server whose score is below this is held for malicious, once there are three false batches."""


class ScrutinizerConfig(Section):
    """`scrutinizer`: gradients of samples with the same label should be more alike than others."""

    warm_up: int = Field(50, ge=3)
    """Iterations before the first score, which parabolas are fitted to."""
    every: PositiveInt = 50
    """Iterations from one score to the next."""
    window: PositiveInt = 5
    """Last scores whose mean decides; before there are so many, nothing does."""
    threshold: float = Field(0.7, gt=0, lt=1)
    """A server for which that mean is below this is held for malicious."""


class SplitOutConfig(Section):
    """`splitout`: gradients that are outliers among those of an honest training."""

    window: PositiveInt = 10
    """Last gradients of which more than half must be outliers for an alarm."""
    fitted_to: int | None = Field(None, ge=3)
    """The first so many gradients of the honest training, that the others are compared with. null: all of them.
    Published: those of the first 1% of an epoch."""


class NoPeekConfig(Section):
    """`nopeek`: the activations are trained to say less about the images."""

    weight: PositiveFloat = 0.1
    """Of the distance correlation, beside the loss."""


class NoiseConfig(Section):
    """`noise`: Gaussian noise on what is sent."""

    share: PositiveFloat = 0.1
    """Its deviation, in deviations of the activations."""


class DuringConfig(Section):
    """The part of the section `defense` that the training depends on."""

    during: tuple[DuringDefense, ...] = ()
    """What the clients do in their split steps; all of it at once."""
    calibration: CalibrationConfig = CalibrationConfig()
    gradient_decomposition: GradientDecompositionConfig = GradientDecompositionConfig()
    trapezoid: TrapezoidConfig = TrapezoidConfig()
    faint_steps: FaintStepsConfig = FaintStepsConfig()
    splitguard: SplitGuardConfig = SplitGuardConfig()
    scrutinizer: ScrutinizerConfig = ScrutinizerConfig()
    splitout: SplitOutConfig = SplitOutConfig()
    nopeek: NoPeekConfig = NoPeekConfig()
    noise: NoiseConfig = NoiseConfig()

    @model_validator(mode="after")
    def _during_each_once(self) -> Self:
        if len(set(self.during)) < len(self.during):
            raise ValueError(f"during must name each defence once, unlike {', '.join(self.during)}")
        return self

    @model_validator(mode="after")
    def _comparable_gradients(self) -> Self:
        published = [name for name in ("splitguard", "splitout") if name in self.during]
        if published and "diverse" in self.during:
            raise ValueError(
                f"during: {', '.join(published)} compares gradients of the first layer over the steps, and with "
                "diverse they are of other layers from step to step, so that honest servers look guilty. Watch with "
                "gradient-decomposition and faint-steps"
            )
        return self

    def training_settings(self) -> dict[str, Any]:
        """What the training depends on: nothing, unless a defence takes part in it."""
        if not self.during:
            return {}
        sections = {name.replace("-", "_") for name in self.during}
        return self.model_dump(mode="json", include={"during", "calibration", *sections}, exclude_none=True)
