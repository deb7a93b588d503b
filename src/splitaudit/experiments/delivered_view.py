"""What the clients of a run hold when its training is over."""

from dataclasses import replace

import torch

from splitaudit.config import RunConfig
from splitaudit.data import AuditData, ImageSet
from splitaudit.defenses.after_settings import FineTuningConfig, InputTransformConfig
from splitaudit.defenses.view import DeliveredView
from splitaudit.evaluation.audit import make_budget
from splitaudit.models import SplitModel
from splitaudit.randomness import derive_generator, derive_seed
from splitaudit.runtime import Runtime


def delivered_view(
    config: RunConfig,
    model: SplitModel,
    data: AuditData,
    settings: FineTuningConfig | InputTransformConfig,
    runtime: Runtime,
) -> DeliveredView:
    """The delivered model, and of each client that takes part, images drawn at random from its own.

    Together they give `settings.images`, each as many as the others unless it has fewer; one alone, so many or all it
    has. A defence that trains nothing takes none.
    """
    shares: list[ImageSet] = []
    if isinstance(settings, FineTuningConfig):
        clients = data.partition.clients[:1] if settings.parties == "alone" else data.partition.clients
        for number, indices in enumerate(clients):
            order = torch.randperm(len(indices), generator=derive_generator(runtime.seed, "defense images", number))
            shares.append(data.train.subset(indices[order[: -(-settings.images // len(clients))]]))
    own = replace(runtime, seed=derive_seed(runtime.seed, "clients"))
    return DeliveredView(model, tuple(shares), make_budget(config, model), config.training, own)
