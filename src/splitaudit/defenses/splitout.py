"""SplitOut: are the gradients outliers among those of an honest training that the client played through by itself?

Erdogan et al., "SplitOut: Out-of-the-Box Training-Hijacking Detection in Split Learning via Outlier Detection", CANS
2024. A Local Outlier Factor model with as many neighbours as there are is fitted to the first layer's gradients of an
honest local training (theirs to those of 1% of an epoch, this one to all that were rehearsed, unless told otherwise); a
server is held for malicious when most gradients of a window are outliers.
"""

from collections import deque
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from splitaudit.defenses.alarm import Alarm
from splitaudit.defenses.during_settings import SplitOutConfig
from splitaudit.defenses.member import Member, first_layer_gradient
from splitaudit.learning.client import ClientView
from splitaudit.learning.state import State, join, part

if TYPE_CHECKING:
    from sklearn.neighbors import LocalOutlierFactor


class SplitOut(Member):
    """Local Outlier Factor of the first layer's gradients. The score is the share of outliers in the window."""

    name = "splitout"
    learns = True

    def __init__(self, config: SplitOutConfig) -> None:
        self._honest: list[Tensor] = []
        self._fitted_to = config.fitted_to
        self._model: LocalOutlierFactor | None = None
        self._window: deque[bool] = deque(maxlen=config.window)
        self.alarm: Alarm = Alarm(0.5)

    def learn(self, view: ClientView) -> None:
        """One more honest gradient, unless there are enough."""
        if len(self._honest) != self._fitted_to:
            self._honest.append(first_layer_gradient(view).float().cpu())

    def settle(self, iterations: int) -> None:
        """Fit the model."""
        from sklearn.neighbors import LocalOutlierFactor  # slow to import, and only needed here

        honest = torch.stack(self._honest)
        self._model = LocalOutlierFactor(n_neighbors=len(honest) - 1, novelty=True).fit(honest.numpy())

    def receive(self, view: ClientView, gradient: Tensor) -> Tensor:
        """The gradient itself."""
        seen = first_layer_gradient(view).float().cpu()
        self._window.append(not bool(seen.isfinite().all()) or self._is_outlier(seen))
        if len(self._window) == self._window.maxlen:
            self.alarm.update(sum(self._window) / len(self._window), view.sent.iteration)
        return gradient

    def _is_outlier(self, seen: Tensor) -> bool:
        assert self._model is not None, "settle comes first"
        # So far away that no density is left is far away.
        with np.errstate(divide="ignore", over="ignore"):
            return bool(self._model.predict(seen[None].numpy())[0] == -1)

    def state(self) -> State:
        """The honest gradients, from which the model is fitted again, and the window."""
        window = torch.tensor(list(self._window), dtype=torch.bool)
        honest = {"honest": torch.stack(self._honest)} if self._honest else {}
        return {**honest, "window": window, **join(alarm=self.alarm.state())}

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._window = deque(state["window"].tolist(), maxlen=self._window.maxlen)
        self.alarm.load_state(part(state, "alarm"))
        self._honest = list(state["honest"]) if "honest" in state else []
        if self._honest:
            self.settle(0)
