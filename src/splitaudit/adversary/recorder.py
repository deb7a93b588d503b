"""What a server can write down while it trains honestly: the activations that reach it anyway."""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from splitaudit.adversary.moments import Moments, channel_rows
from splitaudit.learning.state import State

FORGOTTEN = 0.02
"""Share of the streaming moments that each batch replaces, once that many have come: they look back over some 50
batches, and before that over all."""
SAMPLED = 16
"""Samples of each batch that enter the streaming moments, so that they cost next to nothing."""


@dataclass(frozen=True)
class Recording:
    """What a server has recorded by the end of the training."""

    activations: Tensor
    """`o1` of the last batches, the newest last: (N, ...), as it came."""
    moments: Moments
    """Streaming, of the channels."""
    batches: int = 1
    """How many the activations are of, all of one size."""


class Recorder:
    """A bounded record of activations: the last `batches` batches, and streaming moments of their channels.

    It holds `batches` times one batch and C (C + 1) numbers, however long the training is. A batch is kept as it came:
    nobody writes into what reached the server, so no copy is made.
    """

    def __init__(self, batches: int) -> None:
        self._last: deque[Tensor] = deque(maxlen=batches)
        self._mean: Tensor | None = None
        self._second_moment: Tensor | None = None
        self._seen = 0

    def record(self, activations: Tensor) -> None:
        """Take in one batch of activations (N, ...)."""
        self._last.append(activations)
        rows = channel_rows(activations[:SAMPLED])
        mean, second_moment = rows.mean(0), rows.mT @ rows / len(rows)
        self._seen += 1
        if self._mean is None or self._second_moment is None:
            self._mean, self._second_moment = mean, second_moment
        else:
            share = max(FORGOTTEN, 1 / self._seen)
            self._mean = self._mean.lerp(mean, share)
            self._second_moment = self._second_moment.lerp(second_moment, share)

    def recording(self) -> Recording:
        """What has been recorded so far; at least one batch."""
        assert self._mean is not None, "nothing was recorded"
        assert self._second_moment is not None, "nothing was recorded"
        covariance = self._second_moment - torch.outer(self._mean, self._mean)
        covariance.diagonal().clamp_(min=0)  # rounding, in channels that hardly vary
        activations = torch.cat(list(self._last))
        if activations.dim() == 4:
            # A resumed record has lost the layout, in which convolutions may round otherwise.
            activations = activations.contiguous(memory_format=torch.channels_last)
        return Recording(activations, Moments(self._mean, covariance), len(self._last))

    def state(self) -> State:
        """All that later recordings depend on."""
        if self._mean is None or self._second_moment is None:
            return {}
        batches = {f"batch/{position}": batch for position, batch in enumerate(self._last)}
        statistics = {"mean": self._mean, "second_moment": self._second_moment, "seen": torch.tensor(self._seen)}
        return {**batches, **statistics}

    def load_state(self, state: State, device: torch.device) -> None:
        """Take over what `state` gave."""
        kept = sum(key.startswith("batch/") for key in state)
        batches = [state[f"batch/{position}"].to(device) for position in range(kept)]
        self._last = deque(batches, maxlen=self._last.maxlen)
        self._mean = state["mean"].to(device) if batches else None
        self._second_moment = state["second_moment"].to(device) if batches else None
        # Checkpoints from before it was counted have forgotten at the later rate all the while.
        uncounted = torch.tensor(round(1 / FORGOTTEN) if batches else 0)
        self._seen = int(state.get("seen", uncounted))
