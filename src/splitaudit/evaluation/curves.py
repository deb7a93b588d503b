"""How accuracy falls as the budget grows."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import trapezoid

from splitaudit.evaluation.attack import Attack
from splitaudit.evaluation.measure import Clean, run_attack
from splitaudit.evaluation.result import Curve, EpsUnit
from splitaudit.evaluation.statistics import Interval, mean_interval, wilson_interval
from splitaudit.evaluation.target import Target, in_batches
from splitaudit.runtime import Runtime


def eps_curve(
    attack: Attack,
    target: Target,
    clean: Clean,
    grid: Sequence[float],
    batch_size: int,
    runtime: Runtime,
    *,
    eps_unit: EpsUnit,
) -> Curve:
    """The attack at every budget of `grid` (in the unit of its own, which is `eps_unit`), its steps scaled alike.

    Scored once more after rounding to 8-bit images, which is what a camera or a file would keep.
    """
    right: list[NDArray[np.bool_]] = []
    rounded_right: list[NDArray[np.bool_]] = []
    eps_pixels: list[float] = []
    for eps in grid:
        if eps == 0:
            images = clean.images
        else:
            images = run_attack(attack.with_eps(eps), target, clean, batch_size, runtime).images
        rounded = torch.round(images * 255) / 255
        for kept, scored in ((right, images), (rounded_right, rounded)):
            kept.append((in_batches(target.logits, scored, batch_size).argmax(1) == clean.labels).cpu().numpy())
        eps_pixels.append(attack.with_eps(eps).budget.eps_pixels if eps > 0 else 0.0)
    # The area is a mean over images of each image's own area, so its interval is that of a mean.
    areas = 100 * trapezoid(np.array(right, dtype=np.float64), grid, axis=0) / (grid[-1] - grid[0])
    return Curve(
        attack=attack.name,
        knowledge=attack.knowledge,
        n=len(clean.labels),
        norm=attack.budget.norm,
        eps_unit=eps_unit,
        eps=list(grid),
        eps_pixels=eps_pixels,
        accuracy=[_accuracy(row) for row in right],
        accuracy_ci95=[_interval(row) for row in right],
        accuracy_8bit=[_accuracy(row) for row in rounded_right],
        accuracy_8bit_ci95=[_interval(row) for row in rounded_right],
        area=float(areas.mean()),
        area_ci95=mean_interval(areas),
    )


def _accuracy(right: NDArray[np.bool_]) -> float:
    return 100 * float(right.mean())


def _interval(right: NDArray[np.bool_]) -> Interval:
    return wilson_interval(int(right.sum()), len(right))
