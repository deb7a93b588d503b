"""Training a run's model with checkpoints and curves: from where it was left, to the end, or to a clear stop."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from splitaudit.adversary.onlookers import Onlooker, Watched
from splitaudit.config import RunConfig
from splitaudit.errors import DivergenceError, RunError
from splitaudit.evaluation.result import TrainingResult, WatchingResult
from splitaudit.experiments.alarms import Alarms
from splitaudit.experiments.progress import Reporter
from splitaudit.experiments.store import RunFolder
from splitaudit.learning.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from splitaudit.learning.client import Defense
from splitaudit.learning.layers import learning_rate
from splitaudit.learning.server import Adversary, Server
from splitaudit.learning.session import Session
from splitaudit.learning.state import State

LOGGED_EVERY = 10
"""Iterations between two rows of the training curves."""
OF_THE_MODEL = "Lower training.learning_rate (or adversary.alpha, which pulls at the same parameters)"
OF_THE_SERVER = "Lower adversary.learning_rate, or training.learning_rate if the model diverged with it"
"""What helps against divergence. A server of U-shaped split learning does not see the loss."""


@dataclass
class _Stretch:
    """The iterations since the last row of the curves."""

    seconds_before: float
    began: float = field(default_factory=time.perf_counter)
    losses: list[Tensor] = field(default_factory=list)

    def seconds(self) -> float:
        return time.perf_counter() - self.began


Kept = tuple[Session, RunFolder]
"""A session, and the folder that keeps it."""


def train(
    config: RunConfig, session: Session, folder: RunFolder, reporter: Reporter, beside: list[Kept] | None = None
) -> TrainingResult:
    """Train `session` to the end of its iterations, resuming from the folder's last checkpoint.

    The servers of the sessions `beside`, which have the same `target_fingerprint`, look on, and their folders come to
    hold what a training of their own would have left there, but for timings, which are those of the training that they
    shared. Out of the list are taken those that stand elsewhere than `session`, and those that fail on the way.

    Raises DivergenceError as soon as a loss, the server's own included, or a parameter is not finite; the last good
    checkpoint stays.
    """
    total = config.training.iterations
    seconds = resume(session, folder, reporter)
    others = [] if beside is None else beside
    others[:] = [(other, its) for other, its in others if other.iteration == session.iteration]
    acting = session.server.adversary
    _look_on(session, acting, others)
    for _, its in ((session, folder), *others):
        its.keep_metrics(session.iteration)
    alarms = Alarms(session.defense, reporter.warn)
    alarms.tell()
    saved = time.perf_counter()
    with reporter.training(session.iteration, total) as progress:
        stretch = _Stretch(seconds)
        for done in session.rounds():
            stretch.losses += done.losses
            if len(stretch.losses) < LOGGED_EVERY and done.iteration < total:
                continue
            alarms.tell()  # first: a server that is noticed may be what a divergence comes from
            row = _log(config, session, folder, stretch)
            progress(done.iteration, row["loss"], row["images_per_second"])
            seconds = stretch.seconds_before + stretch.seconds()
            before = len(others)
            others[:] = [
                pair for pair in others if _left_in(partial(_follow, config, session, *pair, stretch), reporter)
            ]
            # Only here, so that a resumed run logs the same rows.
            if time.perf_counter() - saved >= config.runtime.checkpoint_seconds or done.iteration == total:
                _save(session, folder, seconds)
                others[:] = [pair for pair in others if _left_in(partial(_save, *pair, seconds), reporter)]
                saved = time.perf_counter()
            if len(others) < before:
                _look_on(session, acting, others)
            stretch = _Stretch(seconds)
    return summary(config, folder, seconds, session.defense)


def _look_on(session: Session, acting: Adversary | None, others: Sequence[Kept]) -> None:
    """Show the servers of the others every exchange with this one's, whose own adversary is `acting`."""
    servers = [other.server for other, _ in others]
    onlookers = [Onlooker(server.adversary, server.images) for server in servers if server.adversary is not None]
    session.server.adversary = Watched(acting, onlookers) if onlookers else acting


def _follow(config: RunConfig, session: Session, other: Session, its: RunFolder, stretch: _Stretch) -> None:
    """Bring one that looks on to where the session stands, and log that."""
    other.follow(session)
    if other.defense is not None and session.defense is not None:
        other.defense.seconds = session.defense.seconds
    _log(config, other, its, stretch)


def resume(session: Session, folder: RunFolder, reporter: Reporter) -> float:
    """Bring the session to the folder's last readable checkpoint; the seconds of training it stands for."""
    checkpoint = load_checkpoint(folder.checkpoints, reporter.warn)
    if checkpoint is None:
        return 0.0
    try:
        session.load_state(checkpoint.state)
    except (KeyError, RuntimeError) as error:
        raise RunError(
            f"The checkpoints in {folder.path} do not fit this model ({error}); remove the folder and run again."
        ) from None
    if session.defense is not None:
        session.defense.seconds = float(checkpoint.extra.get("watching", math.nan))  # of older ones it is not known
    if 0 < session.iteration < session.iterations:
        reporter.say(f"Resuming at iteration {session.iteration} of {session.iterations}.")
        threads, then = torch.get_num_threads(), checkpoint.extra.get("threads")
        if then not in {None, threads}:
            reporter.warn(
                f"It was trained with runtime.threads={then} so far, and goes on with {threads}: sums are rounded in "
                "another order, so the result will not be, bit for bit, that of a training that was not stopped."
            )
    return float(checkpoint.extra["seconds"])


def _log(config: RunConfig, session: Session, folder: RunFolder, stretch: _Stretch) -> dict[str, Any]:
    losses = torch.stack(stretch.losses).tolist()
    first = session.iteration - len(losses)
    for offset, loss in enumerate(losses):
        if not math.isfinite(loss):
            _diverged(folder, f"The loss became {loss} at iteration {first + offset + 1}")
    row = {
        "iteration": session.iteration,
        "loss": sum(losses) / len(losses),
        "learning_rate": learning_rate(config.training, session.iteration - 1),
        "images_per_second": len(losses) * config.training.batch_size / stretch.seconds(),
        **server_metrics(session.server, folder, session.iteration),
        **logged_scores(session.defense),
    }
    folder.append_metrics(row)
    return row


def server_metrics(server: Server, folder: RunFolder, iteration: int) -> dict[str, float]:
    """The server's part of a row of the curves. Raises DivergenceError if a value is not finite.

    Shadow layers can be that far off while each of their parameters is finite, and then learn nothing more, nor tamper.
    """
    metrics = {} if server.adversary is None else server.adversary.metrics()
    for name, value in metrics.items():
        if not math.isfinite(value):
            _diverged(folder, f"The adversary's {name} became {value} by iteration {iteration}", OF_THE_SERVER)
    return metrics


def logged_scores(defense: Defense | None) -> dict[str, Any]:
    """The detectors' part of a row of the curves; nothing where there are none."""
    scores = {} if defense is None else defense.scores()
    return {"detectors": scores} if scores else {}


def _save(session: Session, folder: RunFolder, seconds: float) -> None:
    watching = None if session.defense is None else session.defense.seconds
    save_state(folder, session.iteration, session.state(), seconds, watching)


def _left_in(work: Callable[[], None], reporter: Reporter) -> bool:
    """Whether one that looks on goes on to do so; if not, it is told why again when its own turn comes."""
    try:
        work()
    except (DivergenceError, OSError) as error:
        reporter.say(f"Left out of this training: {error}")
        return False
    return True


def save_state(folder: RunFolder, iteration: int, state: State, seconds: float, watching: float | None = None) -> None:
    """Save a training state, and the seconds of training it stands for, and which of them defences took. Raises
    DivergenceError if it is not finite."""
    if not all(torch.isfinite(tensor).all() for tensor in state.values() if tensor.is_floating_point()):
        _diverged(folder, f"A parameter became infinite or NaN by iteration {iteration}")
    extra = {"seconds": seconds, "threads": torch.get_num_threads()}
    watched = {} if watching is None or math.isnan(watching) else {"watching": watching}
    save_checkpoint(folder.checkpoints, Checkpoint(iteration, state, extra | watched))


def _diverged(folder: RunFolder, what: str, remedy: str = OF_THE_MODEL) -> None:
    kept = load_checkpoint(folder.checkpoints, lambda _text: None)
    last = "no checkpoint was reached" if kept is None else f"the checkpoint of iteration {kept.iteration} is kept"
    raise DivergenceError(f"{what}; {last} in {folder.path}. {remedy}, and use another --out.")


def summary(config: RunConfig, folder: RunFolder, seconds: float, defense: Defense | None) -> TrainingResult:
    """What a finished training took, and where it ended."""
    rows = folder.read_metrics()[-5:]
    iterations = config.training.iterations
    watching = None if defense is None or math.isnan(defense.seconds) else _watching(config, defense)
    return TrainingResult(
        iterations=iterations,
        seconds=seconds,
        images_per_second=iterations * config.training.batch_size / seconds,
        final_loss=sum(row["loss"] for row in rows) / len(rows),
        watching=watching,
    )


def _watching(config: RunConfig, defense: Defense) -> WatchingResult:
    hand_overs = config.training.iterations if config.data.clients > 1 else 0
    return WatchingResult(
        seconds=defense.seconds,
        gradient_evaluations=defense.rehearsals * config.training.batch_size,
        traffic_bytes=hand_overs * sum(tensor.nbytes for tensor in defense.state().values()),
    )
