"""At what scale the tables are computed: as in the paper, on a CPU in hours, or on embedded images in seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from splitaudit.config import AlignmentConfig, RunConfig
from splitaudit.config_reading import load_config
from splitaudit.experiments.reproduction.settings import Setting
from splitaudit.runtime import resolve


@dataclass(frozen=True)
class Profile:
    """A base config, what the paper's names stand for, and what that changes."""

    name: str
    title: str
    preset: str
    sources: Mapping[str, str]
    """The paper's data sets, and what stands for them; one that is left out is not measured."""
    overrides: Sequence[str] = ()
    networks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The paper's architectures besides the base config's, which is ResNet."""
    instances: Mapping[int, int] | None = None
    """The paper's numbers of images, and ours; by default the same."""
    alphas: Sequence[float] | None = None
    depths: Sequence[int] | None = None
    """Rows measured; by default all."""
    transfer: Sequence[str] = ()
    """What is different for Table 2's transfer attacks, each of which takes some 200 gradients of an image."""
    beside: Sequence[str] = ()
    """A second kind of perturbation, for the default setting of every source; none if empty."""
    image_shape: tuple[int, int, int] = (3, 32, 32)
    """Of the clients' images."""
    loading: float = 8.0
    """Seconds, roughly, of an audit in which no network takes part: reading images, writing a report. These two are for
    the estimate of time."""
    theory: str = "TinyImageNet"
    """The source for which section 4.3 is looked at, over all values of alpha."""
    scaled: Sequence[str] = ()
    """What is smaller than in the paper, in sentences."""
    substituted: Sequence[str] = ()
    """What stands for something else, in sentences."""

    def covers(self, setting: Setting) -> bool:
        """Whether the profile measures such a setting."""
        return (
            setting.source in self.sources
            and (self.instances is None or setting.instances in self.instances)
            and (self.alphas is None or setting.alpha in self.alphas)
            and (self.depths is None or setting.depth in self.depths)
            and (setting.network == "ResNet" or setting.network in self.networks)
        )

    def config(
        self,
        setting: Setting,
        *,
        seed: int = 0,
        overrides: Sequence[str] = (),
        transfer: bool = False,
        beside: bool = False,
        here: bool = True,
    ) -> RunConfig:
        """The resolved config of a setting that the profile covers, for Table 2's transfer attacks or with the second
        kind of perturbation if asked for.

        `overrides` (`a.b=value`) go before what the tables vary; `here` or not, as in `resolve`. Raises ConfigError for
        invalid ones.
        """
        instances = setting.instances if self.instances is None else self.instances[setting.instances]
        varied = [
            f"attacker.source={self.sources[setting.source]}",
            f"attacker.images={instances}",
            f"adversary.alpha={setting.alpha}",
            f"model.input_end=depth{setting.depth}",
            f"proxy.images={instances if setting.source == 'CIFAR-10' else 'null'}",
            f"runtime.seed={seed}",
        ]
        if setting.multi:
            varied += ["adversary.shadow=multi", f"adversary.shadow_blocks={setting.depth}"]
        network = () if setting.network == "ResNet" else self.networks[setting.network]
        varied += [override for override in network if override.startswith("model.")]
        scale = [*self.overrides, *network, *(self.transfer if transfer else ())]
        perturbation = self.beside if beside else ()
        return resolve(load_config(self.preset, [*scale, *overrides, *perturbation, *varied]), here=here)


_NETWORKS = {"EfficientNet": "efficientnet_b0", "DenseNet": "densenet", "MobileNet": "mobilenetv2"}

_PAPER = Profile(
    name="paper",
    title="section 5.1 of the paper, for a GPU",
    preset="paper",
    sources={"SVHN": "svhn", "CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "TinyImageNet": "tiny-imagenet"},
    # The paper does not say how long VR's and SSA's proxy is trained: as long as the target.
    overrides=("proxy.iterations=3000",),
    networks={name: (f"model.name={network}", "model.width=null") for name, network in _NETWORKS.items()},
    beside=("attack.eps=8/255", "attack.eps_unit=pixels", "attack.steps=10", "attack.step_size=null"),
)

_CPU = Profile(
    name="cpu",
    title="scaled down to hours on two CPU cores",
    preset="paper",
    sources={"SVHN": "fashion-mnist", "CIFAR-10": "cifar10", "TinyImageNet": "tiny-imagenet"},
    overrides=(
        "model.width=16",
        "training.iterations=1000",
        "training.batch_size=32",
        "proxy.iterations=1000",
        "alignment.steps=150",
        "evaluation.pgd_steps=5",
        "evaluation.pgd_restarts=1",
        "evaluation.curve_images=50",
    ),
    networks={
        name: (
            f"model.name={network}",
            "model.width=null",
            "training.iterations=300",
            "evaluation.images=400",
            "evaluation.curve_images=20",
        )
        for name, network in _NETWORKS.items()
    },
    transfer=("evaluation.images=250",),
    beside=_PAPER.beside,
    scaled=(
        "ResNet-18 has 16 channels in its first stage instead of 64, and trains for 1,000 iterations of 32 images, not "
        "3,000 of 128: with the paper's optimiser, so that its clean accuracy is lower than the paper's.",
        "EfficientNet, DenseNet and MobileNet are as large as in the paper, but train for 300 iterations, and are "
        "attacked on 400 test images instead of 1,000. They are barely trained, less than ResNet: Table 6 compares "
        "them all the same.",
        "The proxies of VR and SSA train as long as the target, and these two attack 250 test images.",
        "PGD takes 5 steps and one start. Where input layers are not linear (Table 5, depth 2 and more), the aligned "
        f"server fits for 150 steps at most, by default for {AlignmentConfig().steps:,}.",
    ),
    substituted=(
        "SVHN, the source unlike the clients' images, is Fashion-MNIST: 10,000 grey images of clothing. Columns and "
        "claims that name SVHN are measured with it.",
        "CIFAR-100 has no substitute: its columns are empty, and claims are tested without it.",
        "Tiny ImageNet is 50 training images of each of its 200 classes; CIFAR-10 may be a JPEG-coded copy.",
    ),
)

_SMOKE = Profile(
    name="smoke",
    title="embedded images and a tiny network: a test of the code, whose figures mean nothing",
    preset="demo",
    sources={"SVHN": "patches", "CIFAR-10": "digits"},
    overrides=(
        "attack.eps=0.3",
        "attack.eps_unit=standardized",
        "attack.steps=1",
        "attack.step_size=0.3",
        "model.width=8",
        "training.iterations=30",
        "training.batch_size=32",
        "proxy.iterations=30",
        "alignment.steps=10",
        "alignment.candidates=[linear, residual]",
        "evaluation.images=60",
        "evaluation.pgd_steps=2",
        "evaluation.pgd_restarts=1",
        "evaluation.curve_images=8",
    ),
    networks={"DenseNet": ("model.name=resnet9", "model.width=4")},
    instances={1024: 64, 4096: 256, 8192: 280},
    alphas=(0, 1, 100),
    depths=(1, 2),
    beside=("attack.eps=0.1", "attack.eps_unit=pixels", "attack.steps=3", "attack.step_size=null"),
    image_shape=(1, 8, 8),
    loading=0.5,
    theory="SVHN",
    scaled=("Everything: images of 8x8 pixels, 30 iterations, some of the rows.",),
    substituted=(
        "CIFAR-10 is handwritten digits, SVHN patches of photographs; there is no CIFAR-100 and no Tiny ImageNet.",
        "ResNet is a network of two convolutions, DenseNet is a narrow ResNet-9; the other architectures are left out.",
    ),
)

PROFILES = {profile.name: profile for profile in (_PAPER, _CPU, _SMOKE)}
