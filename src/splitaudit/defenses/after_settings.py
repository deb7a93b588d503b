"""What `defense` can say about the delivered model: the defences that clients apply to it, and their settings."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from splitaudit.errors import ConfigError
from splitaudit.section import Section

AfterDefense = Literal["harden", "adversarial-training", "randomized-smoothing", "input-transform"]
"""What clients can do with the delivered model, without the server."""
Parties = Literal["averaged", "in-turn", "alone"]


class FineTuningConfig(Section):
    """How the delivered model is trained on."""

    images: PositiveInt = 12000
    """Training images that take part, over all clients; all of them if there are fewer."""
    epochs: PositiveInt = 4
    batch_size: int = Field(32, ge=2)
    """Images, each with all its variants."""
    learning_rate: PositiveFloat = 0.1
    """At first; it falls along half a cosine. Momentum, weight decay and augmentation are those of `training`."""
    parties: Parties = "averaged"
    """`averaged`: all clients, whose models are averaged after every epoch. `in-turn`: all clients, who hand one model
    and its momentum on, as `round_robin` hands on the client layers. `alone`: the first client, on its own images."""


class HardenConfig(FineTuningConfig):
    """`harden`: stale-copy adversarial fine-tuning."""

    images: PositiveInt = 20000
    epochs: PositiveInt = 7
    batch_size: int = Field(64, ge=2)
    learning_rate: PositiveFloat = 0.1
    parties: Parties = "in-turn"
    stale_labels: float = Field(0.5, ge=0, le=1)
    """Weight, in what each image is to be taken for, of what the delivered model takes the clean one for; the rest is
    its label."""
    steps: PositiveInt = 2
    """Of crafting the adversarial images."""
    overshoot: float = Field(2.0, ge=1)
    """Budget of the adversarial images, as a multiple of the run's."""
    stepped: float = Field(0.1, ge=0, le=1)
    """Share of the adversarial images that take one more step, on the model as it is in its training, within the run's
    budget."""
    modifiers: tuple[Literal["mi", "ni", "di", "ti"], ...] = ("mi", "di")
    """Of the gradient that every second image is crafted with, as in attacks' names: those that cost nothing."""
    weakest: float = Field(0.3, gt=0, le=1)
    """Share of a perturbation that is trained on at least: each is weakened at random in every epoch."""
    grey: float = Field(0.3, ge=0, le=1)
    """Share of the perturbations that are made the same in all colours, as what servers with grey images craft is
    anyway, and as others may choose, to look unlike other attacks."""
    gate: bool = True
    """Leave most of what is said to the delivered model where nothing looks attacked. Every prediction then takes both
    models."""
    least_share: float = Field(0.4, ge=0, le=1)
    """gate only: share that the hardened model has in what is said of images that look clean. Two models know as much
    together as the better one, and say less often the one thing of an image and the other of its attacked copy."""
    mirrored: bool | None = None
    """Predict the mean for each image and its mirror image, at twice the cost. null: if the training mirrors images
    (`training.augment: crop_flip`)."""

    @field_validator("modifiers")
    @classmethod
    def _can_be_combined(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        # Here, since PyTorch comes with it, and most configs say nothing of modifiers.
        from splitaudit.attacks.modifiers import in_order

        try:
            in_order(names)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        return names


class AdversarialTrainingConfig(FineTuningConfig):
    """`adversarial-training`: fine-tuning on adversarial images of the model as it is at every step."""

    batch_size: int = Field(64, ge=2)
    learning_rate: PositiveFloat = 0.03
    parties: Parties = "in-turn"
    method: Literal["pgd", "trades"] = "pgd"
    steps: PositiveInt = 3
    beta: NonNegativeFloat = 6.0
    """trades only: weight of staying the same under attack."""


class RandomizedSmoothingConfig(FineTuningConfig):
    """`randomized-smoothing`: fine-tuning under Gaussian noise, and a vote over noisy copies of each image."""

    sigma: PositiveFloat = 0.12
    """Deviation of the noise, in pixels of [0, 1]."""
    votes: PositiveInt = 16
    """Noisy copies that a prediction takes the mean of."""
    certified_images: PositiveInt = 100
    """The first so many test images are certified."""
    samples: PositiveInt = 1000
    """Noisy copies behind each certificate."""
    failure: float = Field(0.001, gt=0, lt=1)
    """Probability that a certificate is wrong."""


class InputTransformConfig(Section):
    """`input-transform`: images are changed before the model sees them."""

    transforms: Annotated[tuple[Literal["jpeg", "bit-depth", "resize"], ...], Field(min_length=1)] = (
        "jpeg",
        "bit-depth",
        "resize",
    )
    """Applied in this order."""
    quality: int = Field(75, ge=1, le=100)
    """Of JPEG."""
    bits: int = Field(4, ge=1, le=8)
    """Of a colour value."""
    smallest: float = Field(0.9, gt=0, le=1)
    """Least size after the random resize, as a share of the image's own."""
    copies: PositiveInt = 8
    """Transformed copies that an attacker who knows of it averages every gradient over."""


class AfterConfig(Section):
    """The part of the section `defense` that the training does not depend on."""

    after: tuple[AfterDefense, ...] = ()
    """Defences of the delivered model, each for itself."""
    harden: HardenConfig = HardenConfig()
    adversarial_training: AdversarialTrainingConfig = AdversarialTrainingConfig()
    randomized_smoothing: RandomizedSmoothingConfig = RandomizedSmoothingConfig()
    input_transform: InputTransformConfig = InputTransformConfig()

    @model_validator(mode="after")
    def _after_each_once(self) -> Self:
        if len(set(self.after)) < len(self.after):
            raise ValueError(f"after must name each defence once, unlike {', '.join(self.after)}")
        return self

    def settings_of(self, name: AfterDefense) -> Any:
        """The section of a defence."""
        return getattr(self, section(name))


def section(name: str) -> str:
    """The key of a defence's settings."""
    return name.replace("-", "_")


AFTER_KEYS = tuple(AfterConfig.model_fields)
"""The keys on which the training does not depend."""
