"""How accuracy falls as the budget grows."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import trapezoid

from splitaudit.evaluation.attack import Attack
from splitaudit.evaluation.measure import Clean, run_attack
from splitaudit.evaluation.result import Curve
from splitaudit.evaluation.statistics import mean_interval, wilson_interval
from splitaudit.evaluation.target import Target, in_batches
from splitaudit.runtime import Runtime


def eps_curve(
    attack: Attack, target: Target, clean: Clean, grid: Sequence[float], batch_size: int, runtime: Runtime
) -> Curve:
    """The attack at every budget of `grid` (in the unit of its own), its steps scaled alike; scored once more after
    rounding to 8-bit images, which is what a camera or a file would keep.
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
    correct, n = np.array(right), len(clean.labels)
    # The area is a mean over images of each image's own area, so its interval is that of a mean.
    areas = 100 * trapezoid(correct.astype(np.float64), grid, axis=0) / (grid[-1] - grid[0])
    return Curve(
        attack=attack.name,
        knowledge=attack.knowledge,
        n=n,
        eps_pixels=eps_pixels,
        accuracy=[100 * float(row.mean()) for row in correct],
        accuracy_ci95=[wilson_interval(int(row.sum()), n) for row in correct],
        accuracy_8bit=[100 * float(row.mean()) for row in np.array(rounded_right)],
        area=float(areas.mean()),
        area_ci95=mean_interval(areas),
    )
