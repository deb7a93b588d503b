"""How often a whole training with an honest server raises an alarm, and which part of the training does.

An honest server's answer to a faint step follows from that to an ordinary one. So one recorded training stands for as
many of `faint-steps` as there are choices of its steps; for `gradient-decomposition`, which looks at every step, it is
one. Each is judged by a threshold from its own rehearsal, and, to tell a wrong threshold from a statistic that changes
in a training, by one from the honest training itself.

    python -m benchmarks.false_alarms [--trainings 20] [--replays 200] [--json FILE] [--set a.b=value] [CONFIG]
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import binomtest

from splitaudit.config_reading import load_config
from splitaudit.defenses.cusum import LEAST, Cusum
from splitaudit.defenses.during import During
from splitaudit.defenses.faint_steps import FOLLOWING, LEAST_DEVIATION, log_ratio
from splitaudit.defenses.gradient_decomposition import cosine, rounding
from splitaudit.defenses.member import Member
from splitaudit.defenses.settings import DefenseConfig
from splitaudit.experiments.model import model_builder
from splitaudit.experiments.parts import build
from splitaudit.learning.client import ClientView
from splitaudit.learning.session import Session
from splitaudit.randomness import derive_generator, derive_seed
from splitaudit.runtime import resolve


class Tape(Member):
    """Writes down what the detectors look at, in the rehearsal and in the training."""

    name = "tape"
    learns = True

    def __init__(self) -> None:
        self.rehearsed: list[tuple[float, float]] = []
        self.trained: list[tuple[float, float]] = []
        self.rounding = LEAST

    def learn(self, view: ClientView) -> None:
        """One step of the rehearsal."""
        self.rounding = rounding(view.do1)
        self.rehearsed.append((log_ratio(view), cosine(view.do1, view.sent.o1.detach())))

    def receive(self, view: ClientView, gradient: torch.Tensor) -> torch.Tensor:
        """One step of the training."""
        self.trained.append((log_ratio(view), cosine(view.do1, view.sent.o1.detach())))
        return gradient


@dataclass(frozen=True)
class Row:
    """One training."""

    seed: int
    faint: float
    """Share of the replays with an alarm of `faint-steps`."""
    faint_settled: float
    """The same by a threshold from as many steps of the second half of the training as were rehearsed."""
    decomposition: bool
    """Whether `gradient-decomposition` raises an alarm."""
    deviations: list[float]
    """Of the log ratio from what is usual: in the rehearsal, and in each quarter of the training."""


def record(config_name: str, overrides: Sequence[str], seed: int) -> tuple[Tape, DefenseConfig]:
    """An honest training."""
    config = resolve(load_config(config_name, [*overrides, "adversary.kind=honest", f"runtime.seed={seed}"]))
    parts, defense = build(config, lambda _text: None), config.defense or DefenseConfig()
    builder = model_builder(torch.cat(parts.data.partition.clients), config, parts.data)
    tape = Tape()
    during = During(
        [tape],
        lambda: builder(derive_seed(seed, "rehearsal")),
        rehearsed=defense.calibration.iterations,
        iterations=config.training.iterations,
    )
    list(Session(config.training, parts.model, parts.data, None, parts.runtime, during).rounds())
    return tape, defense


def unusual(ratios: Sequence[float]) -> list[float]:
    """How far each log ratio but the first is from the moving average of those before it."""
    usual, found = ratios[0], []
    for ratio in ratios[1:]:
        found.append(ratio - usual)
        usual += FOLLOWING * (ratio - usual)
    return found


def alarmed(
    honest: Sequence[float],
    watched: Sequence[float],
    expected: int,
    false_alarms: float,
    least: float,
    apart: int = 1,
) -> bool:
    """Whether a CUSUM that learned from `honest` raises an alarm in `watched`."""
    cusum = Cusum(false_alarms)
    for value in honest:
        cusum.learn(value)
    cusum.settle(expected, least, apart)
    for iteration, value in enumerate(watched):
        cusum.update(value, iteration)
    detection = cusum.alarm.detection("any")
    return detection is not None and detection.iteration is not None


def replay(tape: Tape, defense: DefenseConfig, seed: int, replays: int) -> Row:
    """The alarms of one training, under so many choices of faint steps."""
    rate, share = defense.calibration.false_alarms, defense.faint_steps.share
    rehearsed, trained = (unusual([ratio for ratio, _ in steps]) for steps in (tape.rehearsed, tape.trained))
    half = len(trained) // 2
    settled = trained[half : half + len(rehearsed)]
    generator = derive_generator(seed, "replays")
    choices = torch.rand(replays, len(trained), generator=generator) < share
    alarms = [
        [
            alarmed(
                honest,
                [trained[at] for at in choice.nonzero().flatten().tolist()],
                round(len(trained) * share),
                rate,
                LEAST_DEVIATION,
                round(1 / share),
            )
            for honest in (rehearsed, settled)
        ]
        for choice in choices
    ]
    faint, faint_settled = np.mean(alarms, axis=0)
    angles = [[angle for _, angle in steps] for steps in (tape.rehearsed, tape.trained)]
    quarters = [np.asarray(rehearsed), *np.array_split(np.asarray(trained), 4)]
    return Row(
        seed=seed,
        faint=float(faint),
        faint_settled=float(faint_settled),
        decomposition=alarmed(angles[0], angles[1], len(angles[1]), rate, tape.rounding),
        deviations=[float(np.std(values)) for values in quarters],
    )


def main() -> None:
    """Print a line a training, and how many raise an alarm; write the rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="demo")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--trainings", type=int, default=20)
    parser.add_argument("--replays", type=int, default=200, help="choices of faint steps in each training")
    parser.add_argument("--first-seed", type=int, default=300)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for seed in range(options.first_seed, options.first_seed + options.trainings):
        rows.append(replay(*record(options.config, options.overrides, seed), seed, options.replays))
        print(json.dumps(asdict(rows[-1])), flush=True)
    for name in ("faint", "faint_settled"):
        shares = [getattr(row, name) for row in rows]
        print(f"{name}: {100 * np.mean(shares):.2f}% of the replays, {100 * max(shares):.1f}% in the worst training")
    found = sum(row.decomposition for row in rows)
    high = binomtest(found, len(rows)).proportion_ci(method="wilson").high
    print(f"decomposition: {found} of {len(rows)} trainings (at most {100 * high:.0f}%, 95% Wilson)")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
