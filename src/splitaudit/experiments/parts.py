"""Everything that a config describes, built but not trained."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from splitaudit.adversary import Listener, make_adversary, untrained_shadow
from splitaudit.config import RunConfig
from splitaudit.data import AuditData, load_audit_data
from splitaudit.defenses.during import During, make_during
from splitaudit.errors import DataError
from splitaudit.evaluation.audit import attacked_images
from splitaudit.evaluation.surrogates import tapped
from splitaudit.evaluation.target import Target
from splitaudit.experiments.digests import digests
from splitaudit.experiments.model import model_builder
from splitaudit.learning.session import Session
from splitaudit.models import SplitModel
from splitaudit.runtime import Runtime, start_runtime


@dataclass(frozen=True)
class Parts:
    """Everything a config describes, built but not trained."""

    data: AuditData
    model: SplitModel
    adversary: Listener | None
    untrained: nn.Module | None
    session: Session
    during: During | None
    """What the clients do in the training against their server."""
    runtime: Runtime
    digests: dict[str, str]

    def describe(self) -> dict[str, Any]:
        """What was loaded, for a report: the images, and the source of a model of the user's own."""
        source = self.digests.get("model.module")
        return self.data.describe() | ({} if source is None else {"model": {"digest": source}})

    def target(self, aligned: nn.Module | None = None, proxy: SplitModel | None = None) -> Target:
        """The trained model, for an audit."""
        shadow = None if self.adversary is None else self.adversary.shadow
        earlier = () if self.adversary is None else tuple(self.adversary.earlier(self.model.F2))
        return Target(self.model, shadow, self.untrained, aligned, self.runtime, proxy, earlier)


def build(config: RunConfig, say: Callable[[str], None]) -> Parts:
    """Load and build everything, so that whatever is wrong is said before any compute."""
    runtime = start_runtime(config)
    say(f"Loading {config.data.name}, and {config.attacker.source} as the attacker's images.")
    data = load_audit_data(config)
    attacked_images(config, len(data.test))
    if len(data.train.classes) < 2:
        raise DataError(f"data.name {config.data.name!r} has one class only: there is nothing to classify.")
    builder = model_builder(torch.cat(data.partition.clients), config, data)
    model = builder(config.runtime.seed)
    if config.attack.layers is not None:
        tapped(model.F2, config.attack.layers)  # raises if a name is none of the server's
    server_knows = (config.adversary, data.attacker.images, model.cut_shape, runtime)
    adversary = make_adversary(*server_knows)
    untrained = None if adversary is None else untrained_shadow(*server_knows)
    during = make_during(config, model.F1, builder, runtime, rounds=False)
    session = Session(config.training, model, data, adversary, runtime, during)
    return Parts(data, model, adversary, untrained, session, during, runtime, digests(config, data))
