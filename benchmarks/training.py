"""What a split training step costs: against the whole model, plain PyTorch and this machine's matrix product, with a
shadow, and with many clients. Ratios in one run; random images, since speed does not depend on them.

    python -m benchmarks.training [--turns 15] [--models resnet18 resnet9]
"""

import argparse
import os
import resource
from collections.abc import Mapping

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import show, take_turns
from splitaudit.adversary import make_adversary
from splitaudit.config import RunConfig
from splitaudit.config_reading import parse_config
from splitaudit.data import AuditData, ImageSet, partition_clients
from splitaudit.learning.session import Session
from splitaudit.models import SplitModel, build_split_model
from splitaudit.runtime import Runtime, resolve, start_runtime

BATCH = 128


def config(model: Mapping[str, object], clients: int = 10, **sections: Mapping[str, object]) -> RunConfig:
    """Settings of a benchmark run."""
    training = {"batch_size": BATCH, "iterations": 10**6}
    data = {"clients": clients}
    return resolve(parse_config({"model": model, "training": training, "data": data, **sections}, "benchmark"))


def random_data(settings: RunConfig, images: int = 12_500, size: int = 32) -> AuditData:
    """Random RGB images in 10 classes."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (images, 3, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.arange(images) % 10
    train = ImageSet("random", pixels, labels, tuple("0123456789"), ())
    partition = partition_clients(labels, settings.data, 0)
    return AuditData(train, train, partition, train.subset(partition.reserve[:2000]))


def build(settings: RunConfig, size: int = 32) -> SplitModel:
    """The model of the settings."""
    return build_split_model(
        settings.model, num_classes=10, image_shape=(3, size, size), mean=[0.5] * 3, std=[0.25] * 3, seed=0
    )


def session(settings: RunConfig, data: AuditData, size: int = 32) -> Session:
    """A session of the settings, ready to step."""
    runtime, model = start_runtime(settings), build(settings, size)
    adversary = make_adversary(settings.adversary, data.attacker.images, model.cut_shape, runtime)
    return Session(settings.training, model, data, adversary, runtime)


class WholeModel:
    """Training the same model in one piece, with the same batches, precision and optimizer."""

    def __init__(self, settings: RunConfig, data: AuditData, *, plain: bool = False) -> None:
        self.runtime = Runtime(torch.device("cpu"), "float32", 0) if plain else start_runtime(settings)
        self.model = build(settings).whole.train()
        if not plain:
            self.runtime.place(self.model)
        self.data, self.plain, self.step_number = data, plain, 0
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, fused=True)

    def step(self) -> None:
        """One step of SGD."""
        chosen = torch.randperm(len(self.data.train))[:BATCH]
        images = self.data.train.images[chosen]
        pixels = images.float().div_(255) if self.plain else self.runtime.pixels(images)
        assert self.data.train.labels is not None
        with self.runtime.autocast():
            logits = self.model(pixels)
        loss = F.cross_entropy(logits.float(), self.data.train.labels[chosen])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def training_flops(model: SplitModel) -> float:
    """Floating-point operations of a step on one image: forward, and twice as many backward."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.whole.eval()(torch.zeros(1, 3, 32, 32))
    flops: int = counter.get_total_flops()
    return 3.0 * flops


def matrix_product_rate(precision: str) -> float:
    """FLOP/s of a 2048 x 2048 matrix product in the training's precision."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(2048, 2048, dtype=dtype), torch.randn(2048, 2048, dtype=dtype)
    return 2 * 2048**3 / take_turns({"product": lambda: a @ b}, 20)["product"]


def step_costs(name: str, turns: int) -> None:
    """Split against whole, plain PyTorch and the machine's peak; with shadows."""
    model = {"name": name, "width": 32 if name == "resnet9" else 64}
    honest, listening = config(model, adversary={"kind": "honest"}), config(model, adversary={"alpha": 0})
    tampering = config(model, adversary={"alpha": 1})
    recording = config(model, adversary={"kind": "aligned"})
    data = random_data(honest)
    whole, plain = WholeModel(honest, data), WholeModel(honest, data, plain=True)
    rounds = {
        label: session(settings, data).rounds()
        for label, settings in (
            ("split", honest),
            ("recording", recording),
            ("listening", listening),
            ("tampering", tampering),
        )
    }
    contestants = {"whole": whole.step, "plain": plain.step}
    contestants |= {label: lambda steps=steps: next(steps) for label, steps in rounds.items()}  # type: ignore[misc]
    seconds = take_turns(contestants, turns)
    rate = BATCH * training_flops(build(honest)) / seconds["split"]
    peak = matrix_product_rate(honest.runtime.precision)
    show(
        f"{name}, batch {BATCH}, {honest.runtime.precision}: a split step takes {1000 * seconds['split']:.0f} ms",
        {
            "split / whole model (at most 1.03)": f"{seconds['split'] / seconds['whole']:.3f}",
            "plain PyTorch (contiguous float32) / split (at least 2)": f"{seconds['plain'] / seconds['split']:.2f}",
            "share of the matrix-product rate (at least 0.75)": f"{rate / peak:.2f} of {peak / 1e9:.0f} GFLOP/s",
            "recording / honest (at most 1.02)": f"{seconds['recording'] / seconds['split']:.3f}",
            "listening shadow (alpha 0) / honest (at most 1.15)": f"{seconds['listening'] / seconds['split']:.3f}",
            "tampering shadow (alpha 1) / honest (at most 1.15)": f"{seconds['tampering'] / seconds['split']:.3f}",
        },
    )


def resident_bytes(process: int | str = "self") -> int:
    """Resident memory of a process, by its id; of this one."""
    with open(f"/proc/{process}/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def many_clients(turns: int) -> None:
    """10 against 10,000 clients on the same images."""
    few, many = (
        config({"name": "resnet9", "width": 16}, clients, adversary={"kind": "honest"}) for clients in (10, 10_000)
    )
    data = random_data(few, 50_000)
    steps = session(few, data).rounds()
    for _ in range(5):
        next(steps)
    memory = resident_bytes()
    many_data = AuditData(data.train, data.test, partition_clients(data.train.labels, many.data, 0), data.attacker)  # type: ignore[arg-type]
    many_steps = session(many, many_data).rounds()
    for _ in range(5):
        next(many_steps)
    added = resident_bytes() - memory
    seconds = take_turns({"few": lambda: next(steps), "many": lambda: next(many_steps)}, 4 * turns)
    show(
        "10 -> 10,000 clients (50,000 images, resnet9 of width 16)",
        {
            "step time (at most 1.02)": f"{seconds['many'] / seconds['few']:.3f}",
            "resident memory (at most 1.05, a second model included)": f"{(memory + added) / memory:.3f}",
        },
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--models", nargs="*", default=["resnet18", "resnet9"])
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} cores")
    for each in arguments.models:
        step_costs(each, arguments.turns)
    many_clients(arguments.turns)
