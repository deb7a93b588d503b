"""What clients can notice of their server: detectors, all listening to the same trainings, honest and tampered with.

    python -m benchmarks.detectors --json runs/detectors.json [--seeds 3] [--honest 20] [--share 0.25] [--set a.b=value]
        [--servers mse:1 hijack ...] [--detectors faint-steps ...] [--until-alarm] [CONFIG]

Each training ends after `--share` of its iterations, by when a detection must have come, or when its loss, or its
server's, is not finite any more. With `--until-alarm`, one with a tampering server ends when all that look on have
raised theirs: its scores are at least what is told. Detectors that change what is sent have trainings of their own, the
others share theirs. Each training is calibrated on the first client's images, as it would do itself, so that no other
seed has a part in its thresholds; once for all the servers of a seed. Cost is CPU time in the detector over that of the
rest of the step, in honest trainings. What the JSON file has already is not computed again; rows of another config,
share or company stay in it, and out of the table.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from splitaudit.config import TrainingConfig
from splitaudit.config_reading import load_config
from splitaudit.defenses.during import During
from splitaudit.defenses.member import Member
from splitaudit.evaluation.detection import FALSE_ALARMS, separation
from splitaudit.evaluation.statistics import wilson_interval
from splitaudit.experiments.parts import Parts, build
from splitaudit.learning.client import Client
from splitaudit.learning.state import State
from splitaudit.runtime import resolve

ALPHAS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
GROUPS = (("gradient-decomposition", "scrutinizer", "splitout"), ("trapezoid", "splitguard"), ("faint-steps",))
"""Detectors that can share a training."""
FROBENIUS_RATE = 1e-4
"""Of shadows whose loss is not divided by the number of activations: they diverge at the usual one."""
EVASIONS = {
    "orthogonal": "{orthogonal: true}",
    "sparse": "{share: 0.02}",
    "late": "{begin: LATE}",
    "proportional": "{proportional: true}",
    "both": "{orthogonal: true, proportional: true}",
    "sparse-orthogonal": "{share: 0.02, orthogonal: true}",
}


@dataclass(frozen=True)
class Row:
    """What one detector made of one training."""

    detector: str
    server: str
    seed: int
    score: float | None
    """The most suspicious one; None if there was no score at all."""
    threshold: float | None
    iteration: int | None
    """Of the first alarm."""
    iterations: int
    """That were watched."""
    cost: float
    """CPU time in the detector, over that of the rest of the step."""
    rehearsal: float
    """CPU time of the honest training of one's own, for all detectors of the training together, in its steps."""
    loss: float | None
    """Of the last ten iterations; None if it is not finite."""
    setting: str = ""
    """Which config and share it is of; unknown for rows of files from before it was noted."""


def server_overrides(server: str, watched: int) -> list[str]:
    """The settings of a server: `honest`, `SIMILARITY:ALPHA`, `hijack`, or one of these with `+EVASION`."""
    name, _, evasion = server.partition("+")
    extra = [f"adversary.evasion={EVASIONS[evasion].replace('LATE', str(watched // 2))}"] if evasion else []
    if name in ("honest", "hijack"):
        return [f"adversary.kind={name}", *extra]
    similarity, _, alpha = name.partition(":")
    if similarity == "frobenius":
        extra.append(f"adversary.learning_rate={FROBENIUS_RATE}")
    return ["adversary.kind=sladv", f"adversary.similarity={similarity}", f"adversary.alpha={alpha}", *extra]


def all_servers() -> list[str]:
    """Every tampering server that is tried by default."""
    published = [f"{similarity}:{alpha:g}" for similarity in ("mse", "l2", "frobenius") for alpha in ALPHAS]
    return [*published, "hijack", *(f"mse:1+{evasion}" for evasion in EVASIONS)]


class Stopwatch:
    """CPU time spent in some calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, timed."""

        def timed(*arguments: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*arguments)
            finally:
                self.seconds += time.thread_time() - began

        return timed


@dataclass(frozen=True)
class Rehearsal:
    """What detectors are after the honest training that a client plays through by itself, whoever the server is."""

    state: State
    seconds: float
    """CPU time."""


def setting_of(options: argparse.Namespace, detectors: Sequence[str]) -> str:
    """What tells rows of one training, watched so long by these detectors, from those of others: servers and seeds are
    told apart besides."""
    overrides = ["adversary.kind=honest", _watched_by(detectors), *options.overrides]
    until = " until alarm" if options.until_alarm else ""
    return f"{resolve(load_config(options.config, overrides)).target_fingerprint()} {options.share:g}{until}"


def _watched_by(detectors: Sequence[str]) -> str:
    return f"defense.during=[{', '.join(detectors)}]"


def rehearse(during: During, parts: Parts, training: TrainingConfig) -> Rehearsal:
    """As the first client's first step would."""
    began, data = time.thread_time(), parts.data
    during.calibrate(Client(0, data.train, data.partition.clients[0], training, parts.runtime))
    return Rehearsal(during.state(), time.thread_time() - began)


def watch(
    options: argparse.Namespace,
    server: str,
    seed: int,
    detectors: Sequence[str],
    rehearsals: dict[tuple[int, tuple[str, ...]], Rehearsal],
) -> list[Row]:
    """Train a share of one training, with these detectors looking on."""
    base = resolve(load_config(options.config, options.overrides))
    watched = math.ceil(options.share * base.training.iterations)
    chosen = [_watched_by(detectors), f"runtime.seed={seed}"]
    overrides = [*chosen, *server_overrides(server, watched), *options.overrides]
    parts = build(resolve(load_config(options.config, overrides)), lambda _text: None)
    assert parts.during is not None
    watches = {member.name: Stopwatch() for member in parts.during.members}
    for member in parts.during.members:
        timed(member, watches[member.name])
    key = (seed, tuple(detectors))
    if key not in rehearsals:
        rehearsals[key] = rehearse(parts.during, parts, base.training)
    parts.during.load_state(rehearsals[key].state)
    losses: list[float] = []
    for each in watches.values():
        each.seconds = 0.0
    began = time.thread_time()
    for done in parts.session.rounds():
        losses += [float(loss) for loss in done.losses]
        adversary = parts.session.server.adversary
        own = [] if adversary is None else adversary.metrics().values()
        if not all(map(math.isfinite, (losses[-1], *own))):
            break  # as a run would
        noticed = server != "honest" and len(parts.during.alarms()) == len(detectors)
        if done.iteration >= watched or (options.until_alarm and noticed):
            break
    seconds = time.thread_time() - began
    loss = float(np.mean(losses[-10:]))
    rest = seconds - sum(each.seconds for each in watches.values())
    found = {detection.name: detection for detection in parts.during.detections()}
    return [
        Row(
            detector=name,
            server=server,
            seed=seed,
            score=found[name].score if name in found else None,
            threshold=found[name].threshold if name in found else None,
            iteration=found[name].iteration if name in found else None,
            iterations=len(losses),
            cost=watches[name].seconds / rest,
            rehearsal=rehearsals[key].seconds / rest * len(losses),
            loss=loss if math.isfinite(loss) else None,
            setting=setting_of(options, detectors),
        )
        for name in detectors
    ]


def timed(member: Member, watch: Stopwatch) -> None:
    """Time what a detector does in a step."""
    member.send = watch.around(member.send)  # type: ignore[method-assign]
    member.receive = watch.around(member.receive)  # type: ignore[method-assign]


def table(rows: Sequence[Row]) -> str:
    """For each detector: false alarms, cost, and against each server AUC, TPR at 1% FPR and by its own threshold."""
    lines = []
    for detector in dict.fromkeys(row.detector for row in rows):
        mine = [row for row in rows if row.detector == detector]
        honest = [row for row in mine if row.server == "honest"]
        if not honest:
            continue
        false = sum(row.iteration is not None for row in honest)
        low, high = wilson_interval(false, len(honest))
        told = f"TPR@{int(FALSE_ALARMS * len(honest))}/{len(honest)}"
        lines += [
            f"{detector}: {false} of {len(honest)} honest runs raise an alarm "
            f"({low:.0f} to {high:.0f}%, Wilson); "
            f"cost {100 * float(np.median([row.cost for row in honest])):.1f}% a step",
            f"  {'server':<18}{'runs':>5}{'AUC':>7}{told:>10}{'alarms':>8}{'first alarm':>13}{'loss':>7}",
        ]
        for server in dict.fromkeys(row.server for row in mine if row.server != "honest"):
            tampered = [row for row in mine if row.server == server]
            steps = [row.iteration for row in tampered if row.iteration is not None]
            found = separation([row.score for row in honest], [row.score for row in tampered])
            lines.append(
                f"  {server:<18}{len(tampered):>5}{found.auc:>7.2f}{found.power:>10.2f}"
                f"{len(steps) / len(tampered):>8.2f}{(f'{np.median(steps):.0f}' if steps else '-'):>13}"
                f"{_mean_loss(tampered):>7}"
            )
    return "\n".join(lines)


def _mean_loss(rows: Sequence[Row]) -> str:
    losses = [row.loss for row in rows if row.loss is not None]
    return f"{np.mean(losses):.2f}" if losses else "-"


def main() -> None:
    """Print the table, and write its rows as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="cifar10-cpu")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3, help="trainings with each tampering server")
    parser.add_argument("--honest", type=int, default=20, help="trainings with an honest server")
    parser.add_argument("--first-seed", type=int, default=100)
    parser.add_argument("--share", type=float, default=0.25, help="of the iterations that is watched")
    parser.add_argument("--servers", nargs="+", default=all_servers())
    parser.add_argument("--detectors", nargs="+", default=[name for group in GROUPS for name in group])
    parser.add_argument("--until-alarm", action="store_true", help="train no further")
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    rows = [Row(**row) for row in json.loads(options.json.read_text())] if options.json.exists() else []
    groups = [[name for name in group if name in options.detectors] for group in GROUPS]
    settings = {setting_of(options, detectors): detectors for detectors in groups if detectors}
    done = {(row.setting, row.server, row.seed) for row in rows}
    rehearsals: dict[tuple[int, tuple[str, ...]], Rehearsal] = {}
    for server, runs in (("honest", options.honest), *((server, options.seeds) for server in options.servers)):
        for seed in range(options.first_seed, options.first_seed + runs):
            for setting, detectors in settings.items():
                if (setting, server, seed) not in done:
                    rows += watch(options, server, seed, detectors, rehearsals)
                    options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    print(table([row for row in rows if row.setting in settings]))


if __name__ == "__main__":
    main()
