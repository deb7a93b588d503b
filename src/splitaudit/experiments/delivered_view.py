"""What the clients of a run hold when its training is over."""

from collections.abc import Sequence
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

    Together they give `settings.images`, or all if there are fewer, each as many as the others or one more unless it
    has fewer; one alone, so many or all it has. Who gives none does not take part. A defence that trains nothing takes
    none.
    """
    shares: list[ImageSet] = []
    if isinstance(settings, FineTuningConfig):
        clients = data.partition.clients[:1] if settings.parties == "alone" else data.partition.clients
        given = dealt(settings.images, [len(indices) for indices in clients])
        for number, indices in enumerate(clients):
            if given[number] == 0:
                continue
            order = torch.randperm(len(indices), generator=derive_generator(runtime.seed, "defense images", number))
            shares.append(data.train.subset(indices[order[: given[number]]]))
    own = replace(runtime, seed=derive_seed(runtime.seed, "clients"))
    return DeliveredView(model, tuple(shares), make_budget(config, model), config.training, own)


def dealt(images: int, held: Sequence[int]) -> list[int]:
    """How many of so many images each client gives that holds so many; whoever holds more makes up for the others."""
    given, left = [0] * len(held), images
    for done, number in enumerate(sorted(range(len(held)), key=held.__getitem__)):
        given[number] = min(held[number], left // (len(held) - done))
        left -= given[number]
    return given
