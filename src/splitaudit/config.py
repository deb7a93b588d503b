"""Everything a run can be told: one frozen `RunConfig`, which `config_reading` makes of YAML and `--set a.b=value`.

Nothing else in the package reads settings from anywhere. Unknown keys are refused with the nearest known one.
"""

import hashlib
import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from splitaudit.defenses.settings import DefenseConfig
from splitaudit.section import Section


def _fraction(value: object) -> object:
    """Accept `8/255` where a number is expected: budgets are usually written so."""
    if isinstance(value, str) and "/" in value:
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError):
            return value
    return value


Amount = Annotated[PositiveFloat, BeforeValidator(_fraction), Field(allow_inf_nan=False)]


Budget = Annotated[float, BeforeValidator(_fraction), Field(allow_inf_nan=False)]


class DataConfig(Section):
    """The clients' images, and how they are spread over the clients."""

    name: str = "digits"
    """A known data set (`digits`, `cifar10`, ...), `hub:owner/name`, a folder of class folders, or an .npz file."""
    root: Path | None = None
    """Folder holding `<name>*.parquet`; nothing is downloaded when it is set."""
    size: PositiveInt | None = None
    """Height and width the images are resized to; the data set's own by default."""
    channels: Literal[1, 3] | None = None
    """1 turns images grey, 3 repeats grey ones; the data set's own by default."""
    clients: PositiveInt = 10
    partition: Literal["iid", "dirichlet", "shards", "own"] = "iid"
    """`own`: all of them are one client's, as in `splitaudit join` on a machine that has that client's images only."""
    beta: PositiveFloat = 0.5
    """Concentration of the Dirichlet partition: the smaller, the more uneven the clients' classes."""
    shards_per_client: PositiveInt = 2
    client_share: float = Field(0.8, gt=0, le=1)
    """Share of the training images that the clients hold; the rest is the attacker's same-distribution data."""


class AttackerConfig(Section):
    """The images the server has of its own. They never overlap the clients' images, nor the test images."""

    source: str = "patches"
    """As `data.name`. The name of the clients' own data set means its images that no client holds."""
    images: PositiveInt = 4096


class ModelConfig(Section):
    """The network, and where it is split."""

    name: str | None = None
    """A model of the zoo (`splitaudit cuts` lists them)."""
    module: str | None = None
    """`package.module:factory` of a model of your own, called as `factory(num_classes=..., channels=...)`."""
    root: Path | None = None
    """Folder that `module` lies in; by default the config file's or the current one, if it is in either."""
    width: PositiveInt | None = None
    """Base width of the models that have one; the model's own by default."""
    input_end: str = "depth1"
    """Last node of the input layers: a name from `splitaudit cuts`, or `depth1` ... `depth4`."""
    server_end: str = "flatten"
    """Last node of the server layers."""

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if (self.name is None) == (self.module is None):
            raise ValueError("set exactly one of model.name (a model of the zoo) and model.module (your own)")
        return self


class TrainingConfig(Section):
    """Split learning itself."""

    topology: Literal["u_shaped", "vanilla"] = "u_shaped"
    """`u_shaped`: labels and output layers stay with the clients. `vanilla`: both are at the server."""
    schedule: Literal["round_robin", "splitfed", "splitfed_v2"] = "round_robin"
    local_steps: PositiveInt = 10
    """splitfed only: batches of each client between two averagings of the client layers."""
    iterations: PositiveInt = 3000
    """Batches that clients exchange with the server, over all clients."""
    batch_size: int = Field(128, ge=2)
    learning_rate: PositiveFloat = 0.01
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: NonNegativeFloat = 0.0
    lr_schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    augment: Literal["none", "crop_flip"] = "none"
    """`crop_flip`: shift every image by up to a sixteenth of its size, and mirror every other one."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum above 0: set training.momentum, or training.nesterov=false")
        return self


class EvasionConfig(Section):
    """How a tampering server avoids being noticed. By default it does not."""

    begin: NonNegativeInt = 0
    """Exchanges before it tampers with the first."""
    share: float = Field(1.0, gt=0, le=1)
    """Of the exchanges after that, chosen at random, that it tampers with."""
    orthogonal: bool = False
    """Leave out what lies along the activations or their mean, and what rounding brings back there."""
    proportional: bool = False
    """Tamper the less, the smaller the gradient that the client sent."""


class SnapshotConfig(Section):
    """Copies of its own layers that a server keeps, to attack them all at once afterwards."""

    every: PositiveInt | None = None
    """Exchanges from one copy to the next; by default so many that the copies are spread over the training."""
    kept: PositiveInt = 4
    """The last so many."""


class AdversaryConfig(Section):
    """What the server does during training. Unless it is honest, it also records what reaches it, and aligns shadow
    layers to that afterwards (`alignment`)."""

    kind: Literal["honest", "sladv", "aligned", "hijack"] = "sladv"
    """`sladv`: trains a shadow beside the model and tampers (Algorithm 1 of the paper). `aligned`: records only.
    `hijack`: returns gradients of an end of its own in place of the task's, as FSHA does."""
    alpha: NonNegativeFloat | None = Field(None, allow_inf_nan=False)
    """Similarity weight: how strongly the server pulls the clients' activations towards its shadow's. By default 1 for
    `sladv` and 0 for `aligned`, which with more than 0 does as `sladv` does. `hijack`: what its gradient is multiplied
    with, 1 by default."""
    evasion: EvasionConfig | None = None
    recorded_batches: PositiveInt = 16
    """How many of the last batches of activations the server keeps."""
    recorded_every: PositiveInt | None = None
    """Exchanges from one batch that it records to the next, beginning with the first. By default it records all; but
    with `defense.during: [diverse]`, where each client has input layers of its own, the first client's, whose model is
    attacked."""
    snapshots: SnapshotConfig | None = None
    """Copies of its layers that it keeps besides, for the adaptive server's attacks on defended models; by default
    none."""
    similarity: Literal["mse", "l2", "frobenius"] = "mse"
    shadow: Literal["residual", "single", "multi", "none"] = "residual"
    shadow_blocks: PositiveInt = 2
    """Residual blocks of the shadow `multi`."""
    learning_rate: PositiveFloat = 0.01
    """Of the shadow, or of what `hijack` has in its place. `frobenius` is not divided by the number of activations, and
    needs far less, such as 0.0001."""
    momentum: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _honest_keeps_nothing(self) -> Self:
        if self.snapshots is not None and self.kind == "honest":
            raise ValueError("snapshots: an honest server keeps none; take adversary.kind=aligned, sladv or hijack")
        return self

    def derived(self) -> dict[str, Any]:
        """The defaults of what was not set: they follow from the other settings."""
        return {"alpha": 1.0 if self.kind in ("sladv", "hijack") else 0.0}

    @property
    def trains_shadow(self) -> bool:
        """Whether the server has a shadow beside the model; of a resolved config."""
        return self.kind in ("sladv", "hijack") or (self.kind == "aligned" and self.alpha != 0)

    @property
    def passive(self) -> bool:
        """Whether clients get the honest gradient, byte for byte, whatever the server learns; of a resolved config."""
        return not self.trains_shadow or (self.kind == "sladv" and self.alpha == 0 and self.evasion is None)


AlignmentObjective = Literal["moments", "neighbours", "batch_norm", "mmd", "discriminator", "translation"]
Candidate = Literal["linear", "single", "single-5x5", "residual", "residual-5x5", "plain", "multi", "resnet"]


class AlignmentConfig(Section):
    """The aligned shadow: fitted after the training to what the server recorded, whatever it did in between."""

    candidates: Annotated[tuple[Candidate, ...], Field(min_length=1)] = ("linear", "residual-5x5", "multi", "resnet")
    """Shapes that the clients' input layers might have. `linear` is solved for and taken if it explains the recording;
    the others are fitted, the worse half dropped again and again."""
    objectives: dict[AlignmentObjective, PositiveFloat] = Field(
        {"moments": 0.1, "translation": 1.0, "discriminator": 0.1}, min_length=1
    )
    """What a fit minimises, with weights."""
    stages: PositiveInt = 4
    """After how many stages of the server layers features are compared, besides the cut."""
    steps: PositiveInt = 1500
    """At most so many for the candidate that is fitted longest; a fit stops when its held-out score does not
    improve."""
    batch_size: int = Field(64, ge=4)
    learning_rate: PositiveFloat = 0.002


class AttackConfig(Section):
    """The perturbation, for SLADV (Algorithm 2 of the paper) and for every anchor beside it."""

    eps: Amount = 8 / 255
    eps_unit: Literal["pixels", "standardized"] = "pixels"
    """`pixels`: of images in [0, 1]. `standardized`: of images divided by the training data's deviation per channel."""
    norm: Literal["linf", "l2"] = "linf"
    steps: PositiveInt = 10
    step_size: Amount | None = None
    """In the unit of eps; 2.5 eps / steps, and never more than eps, by default."""
    start: Literal["gaussian", "uniform", "zero", "power"] = "gaussian"
    """`power` turns a gaussian start to where the objective curves most; it takes one gradient evaluation."""
    layers: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Stages of the server layers whose features label-free attacks change, all at once: their losses are added. By
    default the last one, whose features are `o2`, alone. Names as `splitaudit cuts` prints them."""
    update: Literal["sign", "raw", "l2"] | None = None
    """What a step makes of the gradient; by default steepest ascent in the norm: `sign` for linf, `l2` for l2."""

    @model_validator(mode="after")
    def _each_layer_once(self) -> Self:
        if self.layers is not None and len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers must name each stage once, unlike {', '.join(self.layers)}")
        return self

    def derived(self) -> dict[str, Any]:
        """The defaults of what was not set: they follow from the other settings."""
        return {
            "step_size": min(1.0, 2.5 / self.steps) * self.eps,
            "update": "sign" if self.norm == "linf" else "l2",
        }

    def derived_grid(self) -> tuple[float, ...]:
        """Budgets of a curve, in the unit of eps: up to 64/255 in pixels, else up to four times eps."""
        if self.norm == "linf" and self.eps_unit == "pixels":
            return tuple(level / 255 for level in (0, 1, 2, 4, 8, 16, 32, 64))
        return tuple(factor * self.eps for factor in (0, 0.125, 0.25, 0.5, 1, 2, 4))


class EvaluationConfig(Section):
    """What is measured after the training."""

    images: Annotated[int, Field(ge=2)] | None = 1000
    """The first so many test images are attacked, two at least, of which intervals can be; null means all. Clean
    accuracy is always over all test images."""
    batch_size: PositiveInt = 250
    pgd_steps: PositiveInt = 20
    pgd_restarts: PositiveInt = 2
    eps_grid: tuple[Budget, ...] | None = None
    """Budgets of a curve, in the unit of attack.eps; by default up to 64/255, or to four times eps."""
    curve_images: int = Field(100, ge=2)
    """The first so many of the attacked images make the curves and the checks that attack again."""

    @model_validator(mode="after")
    def _rising_grid(self) -> Self:
        grid = self.eps_grid
        if grid is None:
            return self
        if len(grid) < 2 or grid[0] < 0 or any(a >= b for a, b in pairwise(grid)):
            raise ValueError(
                "eps_grid must be two or more budgets, none negative, each larger than the one before, such as "
                "[0, 2/255, 4/255, 8/255]"
            )
        return self


class ProxyConfig(Section):
    """The proxy model of ordinary transfer attacks (VR, SSA): trained only when such an attack is asked for."""

    images: PositiveInt | None = None
    """Labelled images of the clients' data set that no client holds; 4096, or all if there are fewer."""
    iterations: PositiveInt = 600
    """Batches; all else is as in `training`."""
    file: Path | None = None
    """A proxy that an earlier run left."""


class RuntimeConfig(Section):
    """Where and how it is computed."""

    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, ..."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Of the training and of crafting; what is crafted is always scored in float32."""
    seed: int = Field(0, ge=0)
    threads: PositiveInt | None = None
    checkpoint_seconds: NonNegativeFloat = 60.0
    """How much training a kill may cost; 0 saves after every logged row (10 iterations, or a splitfed round)."""


class TransportConfig(Section):
    """How clients and server talk when they are processes of their own (`splitaudit serve`, `splitaudit join`)."""

    address: str = Field("127.0.0.1:50051", pattern=r"^.+:\d+$")
    """`host:port` that the server listens on, and that clients connect to."""
    image_shape: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    """Channels, height and width of the clients' images, for the server, which has none of them."""
    classes: int | None = Field(None, ge=2)
    """Number of the clients' classes, for the server."""
    wire: Literal["exact", "bf16"] = "exact"
    """`bf16` halves the bytes of float32 tensors; the result is no longer that of the run in one process."""
    missing: Literal["wait", "skip"] = "wait"
    """What the server does about a client that does not answer: wait for it, or go on without its batch."""
    step_seconds: PositiveFloat = 60.0
    """How long the server waits for the next request of the client whose turn it is. Then a forward pass without its
    backward pass is forgotten, and with `missing: skip` the client passed over."""
    patience_seconds: PositiveFloat = 600.0
    """How long a party goes on trying without any progress. Then it gives up, and can be started again."""


_NO_PART_OF_A_RUN = {
    "data": {"root"},
    "model": {"root"},
    "proxy": {"file"},
    "runtime": {"checkpoint_seconds", "threads"},
    "transport": {"address", "image_shape", "classes", "step_seconds", "patience_seconds"},
}
"""Where things lie (what they are is told by their digests), how often a run is saved, how many threads compute it, who
listens where."""

_AFTER_THE_TRAINING = ("alignment", "attack", "evaluation", "proxy")


class RunConfig(Section):
    """One run, whole: what `config.yaml` of a run folder holds."""

    data: DataConfig = DataConfig()
    attacker: AttackerConfig = AttackerConfig()
    model: ModelConfig
    training: TrainingConfig = TrainingConfig()
    adversary: AdversaryConfig = AdversaryConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    attack: AttackConfig = AttackConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    proxy: ProxyConfig = ProxyConfig()
    defense: DefenseConfig | None = None
    runtime: RuntimeConfig = RuntimeConfig()
    transport: TransportConfig = TransportConfig()

    @model_validator(mode="after")
    def _diverse_clients(self) -> Self:
        if self.diverse and self.data.clients == 1:
            raise ValueError("defense.during: diverse needs clients that differ; data.clients is 1, choose 2 or more")
        return self

    def to_yaml(self) -> str:
        """The complete config, as a run folder keeps it."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def cautions(self) -> list[str]:
        """What is legal but most likely not meant."""
        cautions = []
        if self.adversary.evasion is not None and self.adversary.passive:
            cautions.append(
                "adversary.evasion: a server that tampers with nothing has nothing to hide. Set adversary.alpha above "
                "0, with adversary.kind=sladv or aligned."
            )
        if self.defense is not None and "scrutinizer" in self.defense.during:
            cautions.append(
                "defense.during: scrutinizer held every honest server for malicious where it was measured "
                "(docs/defenses.md), so its alarm says little. Watch with gradient-decomposition and faint-steps."
            )
        if self.diverse:
            cautions.append(
                "defense.during: with diverse every client ends with a model of its own, whose input layers learned "
                "from its own images alone. What is audited, and hardened, is that of one: of the first, in a run."
            )
        if self.attack.start == "zero":
            cautions.append(
                "attack.start=zero: cosine similarity has its maximum at delta = 0, so its gradient there is exactly "
                "zero and the first step follows rounding errors. Use gaussian unless that is what you study."
            )
        if self.attack.update == "raw":
            cautions.append(
                "attack.update=raw: the gradient of a cosine is tiny per pixel, so steps of usual sizes move almost "
                "nothing. Use sign unless that is what you study."
            )
        return cautions

    @property
    def diverse(self) -> bool:
        """Whether each client has input layers of its own, so that there are as many models as clients."""
        return self.defense is not None and "diverse" in self.defense.during

    def derived_adversary(self) -> dict[str, Any]:
        """The defaults of what was not set in `adversary`."""
        recording = self.diverse and self.adversary.kind != "honest"
        return self.adversary.derived() | {"recorded_every": self.data.clients if recording else None}

    def derived_keys(self) -> set[str]:
        """The settings, as `a.b`, whose values are those that follow from the others."""
        followed = {"adversary": self.derived_adversary(), "attack": self.attack.derived()}
        followed["evaluation"] = {"eps_grid": self.attack.derived_grid()}
        return {
            f"{name}.{key}"
            for name, values in followed.items()
            for key, value in values.items()
            if getattr(getattr(self, name), key) == value
        }

    def fingerprint(self) -> str:
        """A hash of every setting that tells one run from another."""
        return _hash(self._settings())

    def training_fingerprint(self) -> str:
        """A hash of every setting that the trained model and what its server recorded depend on; of a resolved config.

        Two configs that share it share their training. A server that trains no shadow needs its images afterwards only.
        """
        return self._trained(() if self.adversary.trains_shadow else ("attacker",))

    def target_fingerprint(self) -> str:
        """A hash of every setting that the trained model depends on; of a resolved config.

        It is the same for all passive servers, whatever they have and learn.
        """
        return self._trained(("attacker", "adversary") if self.adversary.passive else ())

    def _trained(self, without: tuple[str, ...]) -> str:
        without += _AFTER_THE_TRAINING
        trained = {name: section for name, section in self._settings().items() if name not in without}
        trained.pop("defense", None)
        defense = {} if self.defense is None else self.defense.training_settings()
        return _hash(trained | ({"defense": defense} if defense else {}))

    def _settings(self) -> dict[str, Any]:
        """What is set. What is left out has no part in it, so that a new option leaves old runs what they were."""
        return self.model_dump(mode="json", exclude=_NO_PART_OF_A_RUN, exclude_none=True)

    def differences(self, other: "RunConfig") -> list[str]:
        """The settings in which two configs differ, as `a.b: mine, other`, of those that can change a number."""
        return [f"{key}: {mine!r}, {theirs!r}" for key, (mine, theirs) in self.changes(other).items()]

    def changes(self, other: "RunConfig") -> dict[str, tuple[Any, Any]]:
        """The same by `a.b`: this config's value, as JSON has it, and the other's."""
        mine, theirs = (config._with_defense() for config in (self, other))
        return {
            f"{section}.{key}": (value, theirs[section][key])
            for section, values in mine.items()
            for key, value in values.items()
            if value != theirs[section][key]
        }

    def _with_defense(self) -> dict[str, Any]:
        """All settings. Without the section, there are no defences: as with one that names none."""
        settings = self.model_dump(mode="json", exclude=_NO_PART_OF_A_RUN)
        return settings | {"defense": settings["defense"] or DefenseConfig().model_dump(mode="json")}


def _hash(settings: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()
