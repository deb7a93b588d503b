"""Fitting one candidate's shadow layers to the evidence, a stretch of steps at a time."""

import time
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from splitaudit.adversary.alignment.evidence import Evidence
from splitaudit.adversary.alignment.objective import Batch
from splitaudit.adversary.alignment.objectives import OBJECTIVES
from splitaudit.adversary.alignment.shadow import initial_shadow
from splitaudit.config import AlignmentConfig
from splitaudit.learning.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from splitaudit.learning.state import State, join, load_optimizer_state, optimizer_state, part
from splitaudit.randomness import derive_generator

AVERAGED, BEGUN = 0.98, 10
"""Share of the averaged parameters that each step keeps; it is less in so many first steps and a while after them, so
that what a fit began with does not linger."""
TOLERATED = 1.25
"""A later state replaces an earlier one unless its score is so many times the best. Close to the clients' own layers a
score tells no more than that, and fits go on to improve."""
PATIENCE, IMPROVED = 12, 0.99
"""A fit has settled when so many scores in a row are not below this share of the best before them."""


class Fit:
    """The fitting of shadow layers of one shape. What is judged and given away is the average over the last steps.

    With a `folder`, it is saved after every stretch, and goes on from there when made anew.
    """

    def __init__(self, shape: str, config: AlignmentConfig, evidence: Evidence, folder: Path | None) -> None:
        self.shape = shape
        self.scores: dict[int, float] = {}
        """Held-out, after so many steps."""
        self.seconds = 0.0
        self._steps = 0
        self._folder = folder
        self._config = config
        self._evidence = evidence
        self._fitted = initial_shadow(shape, evidence).train()
        self._averaged = AveragedModel(self._fitted, avg_fn=_average, use_buffers=True)
        self._optimizer = torch.optim.Adam(
            [{"params": list(self._fitted.parameters())}], lr=config.learning_rate, fused=True
        )
        self._objectives = {name: OBJECTIVES[name](evidence) for name in config.objectives}
        self.shadow = deepcopy(self._fitted).eval()
        """The last of the good ones so far: pixels (N, C, H, W) to activations, in eval mode."""
        self._resume()

    @property
    def score(self) -> float:
        """Of `shadow`; infinite before the first look."""
        return self.score_after(self._steps)

    def score_after(self, steps: int) -> float:
        """What `score` was after so many steps, for a fit that may have gone on since."""
        best = kept = float("inf")
        for done, score in self.scores.items():
            if done <= steps:
                best = min(best, score)
                kept = score if score <= TOLERATED * best else kept
        return kept

    @property
    def settled(self) -> bool:
        """Whether the last twelve scores have brought nothing that counts."""
        scores = list(self.scores.values())
        return len(scores) > PATIENCE and min(scores[-PATIENCE:]) > IMPROVED * min(scores[:-PATIENCE])

    def advance_to(self, steps: int) -> None:
        """Fit until so many steps are done, and score what has come of it."""
        if steps <= self._steps:
            return
        began = time.perf_counter()
        while self._steps < steps:
            self._step()
        averaged = self._averaged.module.eval()
        score = self._evidence.score(averaged)
        self.scores[steps] = score
        if score == self.score:
            self.shadow.load_state_dict(averaged.state_dict())
        self.seconds += time.perf_counter() - began
        if self._folder is not None:
            save_checkpoint(
                self._folder,
                Checkpoint(steps, self._state(), {"scores": list(self.scores.items()), "seconds": self.seconds}),
            )

    def _step(self) -> None:
        images = self._evidence.images
        generator = derive_generator(self._evidence.runtime.seed, "alignment", self.shape, self._steps)
        some = images[torch.randint(len(images), (self._config.batch_size,), generator=generator)]
        pixels = [self._evidence.runtime.pixels(some)]
        for objective in self._objectives.values():
            pixels.append(objective.pictures(self._steps) if objective.pictures else pixels[0][:0])
        activations = self._evidence.imitate(self._fitted, torch.cat(pixels))
        own, *others = activations.split([len(drawn) for drawn in pixels])
        features = self._evidence.features(own)
        losses = [
            objective.loss(Batch(self._steps, some, features, translated))
            for objective, translated in zip(self._objectives.values(), others, strict=True)
        ]
        # Statistics that are far off are so by orders of magnitude, and would drown the other objectives.
        bounded = [loss / loss.detach().abs().clamp_min(1) for loss in losses]
        weighted = [weight * loss for weight, loss in zip(self._config.objectives.values(), bounded, strict=True)]
        self._optimizer.zero_grad()
        torch.stack(weighted).sum().backward()
        self._optimizer.step()
        self._averaged.update_parameters(self._fitted)
        self._steps += 1

    def _state(self) -> State:
        return join(
            fitted=self._fitted.state_dict(),
            averaged=self._averaged.state_dict(),
            shadow=self.shadow.state_dict(),
            optimizer=optimizer_state(self._optimizer),
            **{name: objective.state() for name, objective in self._objectives.items()},
        )

    def _resume(self) -> None:
        saved = None if self._folder is None else load_checkpoint(self._folder, lambda _text: None)
        if saved is None:
            return
        self._fitted.load_state_dict(part(saved.state, "fitted"))
        self._averaged.load_state_dict(part(saved.state, "averaged"))
        self.shadow.load_state_dict(part(saved.state, "shadow"))
        load_optimizer_state(self._optimizer, part(saved.state, "optimizer"))
        for name, objective in self._objectives.items():
            objective.load_state(part(saved.state, name))
        self._steps = saved.iteration
        self.scores = {int(steps): score for steps, score in saved.extra["scores"]}
        self.seconds = saved.extra["seconds"]


def _average(averaged: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
    kept = min(AVERAGED, float(steps) / (float(steps) + BEGUN))
    return averaged * kept + current * (1 - kept)
