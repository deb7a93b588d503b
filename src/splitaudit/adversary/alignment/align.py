"""Shadow layers for a recording: candidates of several shapes, of which the server keeps the best it can know of."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, fx, nn

from splitaudit.adversary.alignment.evidence import Evidence
from splitaudit.adversary.alignment.fitting import Fit
from splitaudit.adversary.alignment.linear import Identified, identify, solve
from splitaudit.adversary.alignment.noise import identify_through_noise
from splitaudit.adversary.recorder import Recording
from splitaudit.config import AlignmentConfig
from splitaudit.errors import ConfigError
from splitaudit.runtime import Runtime

FEWEST_IMAGES = 16
STRETCH = 50
"""Steps between two looks at a fit's held-out score."""


@dataclass(frozen=True)
class Candidate:
    """Shadow layers of one shape, and how good the server thinks they are."""

    shape: str
    shadow: nn.Module
    score: float
    """Held-out: 0 where nothing tells its features from those of the clients (`Evidence.score`)."""
    steps: int
    """Of fitting; 0 if it was solved for."""
    seconds: float


@dataclass(frozen=True)
class Aligned:
    """The shadow layers chosen, and what they were chosen from."""

    chosen: Candidate
    candidates: list[Candidate]
    explained: float | None
    """Share of the activations' variance that one convolution explains; None if that was not tried or not possible."""
    seconds: float


def align(
    config: AlignmentConfig,
    recording: Recording,
    layers: fx.GraphModule,
    images: Tensor,
    runtime: Runtime,
    folder: Path | None,
    progress: Callable[[str, int, int], None],
) -> Aligned:
    """Align shadow input layers to what a server recorded, with nothing but what it has.

    If `linear` is a candidate and one convolution explains the recording, that is what the clients' layers are,
    whatever the statistics of the server's images say, and nothing is fitted. Else the candidates are fitted by
    successive halving (Jamieson & Talwalkar, 2016): all for a while, the better half of them for twice as long, until
    one is left, which goes on until its held-out score stops improving. Where a convolution nearly explains the
    recording, its score decides between it and that one.

    Args:
        config: the `alignment` section.
        recording: what the server recorded.
        layers: the server layers as they ended; from now on in eval mode, without gradients.
        images: the server's own, uint8 (M, C, H, W), unlabelled.
        runtime: device, precision, and a seed of the server's own.
        folder: where fits are saved as they go, and gone on with; None to save nothing.
        progress: told the candidate's shape, its steps so far, and at most how many there will be.

    Raises:
        ConfigError: there are fewer than 16 images, or all of one colour, no candidate is left, or none has a score.
    """
    check_images(images)
    began = time.perf_counter()
    evidence = Evidence(recording, layers, images, config, runtime)
    solved: list[Candidate] = []
    found = None
    if "linear" in config.candidates:
        progress("linear", 0, 1)
        solved, found = _linear(evidence)
        progress("linear", 1, 1)
    shapes = [shape for shape in config.candidates if shape != "linear"]
    given_up: list[Candidate] = []
    if found is not None and found.certain:
        final = solved
    elif shapes:
        last, *given_up = _fitted(shapes, config, evidence, folder, progress)
        final = [*solved, last]
    elif solved:
        final = solved
    else:
        raise ConfigError(
            "alignment.candidates: one convolution does not explain the recording, and there is no other candidate. "
            "The training is kept: splitaudit attack RUN --set 'alignment.candidates=[linear, residual]' goes on."
        )
    chosen = min(final, key=lambda candidate: candidate.score)
    if not math.isfinite(chosen.score):
        raise ConfigError(
            f"alignment.learning_rate: at {config.learning_rate:g} no candidate has a score. Take less, or other "
            "alignment.objectives. The training is kept: splitaudit attack RUN --set alignment.learning_rate="
            f"{config.learning_rate / 10:g} goes on."
        )
    explained = None if found is None else found.explained
    candidates = [*final, *given_up]
    # Of an alignment that was killed and goes on, this process has seen a part.
    seconds = max(time.perf_counter() - began, sum(candidate.seconds for candidate in candidates))
    return Aligned(chosen, candidates, explained, seconds)


def check_images(images: Tensor) -> None:
    """Raise ConfigError if these images of the server's, uint8 (M, C, H, W), are none to align shadow layers to."""
    if len(images) < FEWEST_IMAGES:
        raise ConfigError(
            f"attacker.images: {len(images)} are too few to align shadow layers to: take {FEWEST_IMAGES}."
        )
    if images.min() == images.max():
        raise ConfigError("attacker.source: its images are all of one colour. Take others.")


def _linear(evidence: Evidence) -> tuple[list[Candidate], Identified | None]:
    """The solution, if it is one or nearly, and what was identified."""
    began = time.perf_counter()
    if evidence.images.shape[2:] != evidence.activations.shape[2:]:
        return [], None
    colours = evidence.images.shape[1]
    found = identify(evidence.activations, colours, evidence.batch)
    if found is None or not found.certain:
        found = identify_through_noise(evidence.activations, colours, evidence.runtime.seed) or found
    if found is None or not found.worth_trying:
        return [], found
    shadow = solve(found, evidence)
    seconds = time.perf_counter() - began
    return [Candidate("linear", shadow, evidence.score(shadow), 0, seconds)], found


def _fitted(
    shapes: Sequence[str],
    config: AlignmentConfig,
    evidence: Evidence,
    folder: Path | None,
    progress: Callable[[str, int, int], None],
) -> list[Candidate]:
    """All, the one that was left first: a score that it had later counts for less than those by which others lost."""
    fits = [Fit(shape, config, evidence, None if folder is None else folder / shape) for shape in shapes]
    running, steps, stretch = fits, 0, STRETCH
    while len(running) > 1 and steps < config.steps:
        steps = min(config.steps, steps + stretch)
        for fit in running:
            fit.advance_to(steps)
            progress(fit.shape, steps, config.steps)
        # By the scores of now: what resumes a killed alignment may have fits that had gone on.
        running = sorted(running, key=lambda fit: fit.score_after(steps))[: (len(running) + 1) // 2]
        stretch *= 2
    last = running[0]
    while steps < config.steps and not last.settled:
        steps = min(config.steps, steps + STRETCH)
        last.advance_to(steps)
        progress(last.shape, steps, config.steps)
    ranked = [last, *(fit for fit in fits if fit is not last)]
    return [Candidate(fit.shape, fit.shadow, fit.score, max(fit.scores), fit.seconds) for fit in ranked]
