"""What an attack can go through in place of the target, and what it takes to have it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import fx, nn

from splitaudit.attacks.objectives import Function
from splitaudit.errors import ConfigError, unknown_name
from splitaudit.evaluation.result import Knowledge
from splitaudit.evaluation.target import Target
from splitaudit.models.stages import Stages


@dataclass(frozen=True)
class Surrogate:
    """A model that an attacker has. Its features serve attacks without labels, its logits those with."""

    name: str
    title: str
    knowledge: Knowledge
    input: Callable[[Target], nn.Module | None]
    """Its input layers; None if the target's server, or this audit, has none."""
    server: Callable[[Target], nn.Module]
    output: Callable[[Target], nn.Module] | None
    """Its output layers; None for an attacker without any, who cannot use labels."""

    def available(self, target: Target) -> bool:
        """Whether this audit has such a model."""
        return self.input(target) is not None

    def features(self, target: Target, stages: Sequence[str] | None = None) -> Function:
        """Pixels to `o2`; or to the features after each of these stages of the server layers, a tuple.

        Raises ConfigError for a name that is no stage, with the nearest.
        """
        layers, server = self.input(target), self.server(target)
        assert layers is not None, f"there is no {self.name} here"
        return target.attacked(layers, server if stages is None else tapped(server, stages))

    def logits(self, target: Target) -> Function:
        """Pixels to logits."""
        layers = self.input(target)
        assert layers is not None, f"there is no {self.name} here"
        assert self.output is not None, f"{self.name} has no output layers"
        return target.attacked(layers, self.server(target), self.output(target))


def tapped(server: nn.Module, names: Sequence[str]) -> nn.Module:
    """The server layers, giving a tuple: the features (N, ...) after each of the stages `names` (`attack.layers`).

    Raises ConfigError for a name that is no stage, with the nearest.
    """
    assert isinstance(server, fx.GraphModule), "`cut` made the server layers"
    stages = Stages(server)
    for name in names:
        if name not in stages.names:
            raise ConfigError(f"attack.layers: {unknown_name('stage of the server layers', name, stages.names)}")
    return stages.tap(names)


def _server_layers(target: Target) -> nn.Module:
    return target.model.F2


SURROGATES = {
    surrogate.name: surrogate
    for surrogate in (
        # For noise: the images themselves, of which no gradient is asked.
        Surrogate("nothing", "", "none", lambda _t: nn.Identity(), lambda _t: nn.Identity(), None),
        Surrogate("shadow", "the server's shadow layers", "server", lambda t: t.shadow, _server_layers, None),
        Surrogate("aligned", "the server's aligned shadow layers", "server", lambda t: t.aligned, _server_layers, None),
        Surrogate("untrained", "untrained shadow layers", "server", lambda t: t.untrained, _server_layers, None),
        Surrogate("true-input", "the true input layers", "oracle", lambda t: t.model.F1, _server_layers, None),
        Surrogate("whole", "the whole model", "white-box", lambda t: t.model.F1, _server_layers, lambda t: t.model.F3),
        Surrogate(
            "proxy",
            "a proxy trained on labelled images",
            "none",
            lambda t: None if t.proxy is None else t.proxy.F1,
            lambda t: nn.Identity() if t.proxy is None else t.proxy.F2,
            lambda t: nn.Identity() if t.proxy is None else t.proxy.F3,
        ),
    )
}
