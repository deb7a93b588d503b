"""The server that records what it sees. Aligned shadow layers are fitted to its recording after the training."""

import torch
from torch import Tensor, nn

from splitaudit.adversary.recorder import Recorder, Recording
from splitaudit.adversary.snapshots import Snapshots
from splitaudit.adversary.stage1 import Stage1
from splitaudit.learning.server import ServerView
from splitaudit.learning.state import State, join, part
from splitaudit.runtime import Runtime


class Listener:
    """Records activations, and leaves the answer to `stage1`. `snapshots` are of its own layers.

    Without one it returns the honest gradient itself: no client can tell it from an honest server.
    """

    def __init__(
        self, batches: int, every: int, stage1: Stage1 | None, runtime: Runtime, snapshots: Snapshots | None
    ) -> None:
        """It keeps the last `batches` of the first of every so many exchanges (`every`)."""
        self._recorder = Recorder(batches)
        self._every, self._exchanges = every, 0
        self._stage1 = stage1
        self._snapshots = snapshots
        self._runtime = runtime

    @property
    def shadow(self) -> nn.Module | None:
        """The shadow of `stage1`, if there is one."""
        return None if self._stage1 is None else self._stage1.shadow

    @property
    def recording(self) -> Recording:
        """What has been recorded so far."""
        return self._recorder.recording()

    def earlier(self, layers: nn.Module) -> list[nn.Module]:
        """The copies kept of the server layers, which are like `layers`; the oldest first."""
        return [] if self._snapshots is None else self._snapshots.restored(layers)

    def respond(self, view: ServerView) -> Tensor:
        """The gradient that `stage1` returns, or the honest one."""
        if self._exchanges % self._every == 0:
            self._recorder.record(view.activations)
        self._exchanges += 1
        if self._snapshots is not None:
            self._snapshots.watch(view.layers)
        return view.activation_gradient if self._stage1 is None else self._stage1.respond(view)

    def metrics(self) -> dict[str, float]:
        """Those of `stage1`."""
        return {} if self._stage1 is None else self._stage1.metrics()

    def state(self) -> State:
        """The recording so far, `stage1`, and the copies of the server layers."""
        stage1 = {} if self._stage1 is None else self._stage1.state()
        snapshots = {} if self._snapshots is None else self._snapshots.state()
        parts = join(recorder=self._recorder.state(), stage1=stage1, snapshots=snapshots)
        return {"exchanges": torch.tensor(self._exchanges), **parts}

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        self._exchanges = int(state.get("exchanges", 0))  # not in older checkpoints, of servers that record all
        self._recorder.load_state(part(state, "recorder"), self._runtime.device)
        if self._stage1 is not None:
            self._stage1.load_state(part(state, "stage1"))
        if self._snapshots is not None:
            self._snapshots.load_state(part(state, "snapshots"), self._runtime.device)
