"""The server that expects the clients to harden: it hardens its own surrogate in much the same way, and attacks that.

It has its layers, shadow input layers and its own unlabelled images. In the place of labels it takes either what the
stale surrogate makes of each clean image, or the cluster into which that falls.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitaudit.attacks import Budget
from splitaudit.attacks.objectives import Objective, cross_entropy
from splitaudit.config import TrainingConfig
from splitaudit.defenses.after_settings import HardenConfig
from splitaudit.defenses.crafting import composed, craft_to_harden, overshot, to_harden_on, turned_from
from splitaudit.defenses.fine_tuning import Learner, Loss, Share, fine_tune, labels_of_all
from splitaudit.defenses.gate import Suspicion, new_gate
from splitaudit.defenses.harden import settled
from splitaudit.errors import DivergenceError
from splitaudit.randomness import derive_seed, isolated_global_rng
from splitaudit.runtime import Runtime

WITHIN = "features within the budget"
"""The surrogate whose adversarial images do not overshoot the budget as the clients' do."""
TIGHTEST = 1e-3
"""How small the spread within clusters is taken to be at least, as a share of the features' mean square."""


@dataclass(frozen=True)
class ServerSide:
    """All that a server has when the training is over."""

    shadow: nn.Module
    layers: nn.Module
    """The server layers as they ended."""
    images: Tensor
    """Its own, uint8 (M, C, H, W), unlabelled."""
    training: TrainingConfig
    runtime: Runtime
    """With a seed of its own."""


@dataclass(frozen=True)
class Surrogates:
    """What a server makes of its part of the model, to attack it in place of what the clients make of theirs."""

    hardened: dict[str, tuple[nn.Module, nn.Module]]
    """Shadow and server layers, by the targets that they were hardened with; and `WITHIN`, where clients overshoot."""
    suspicion: Suspicion | None
    """A gate, if the clients have one and it did not diverge."""
    mirrored: bool
    """Whether the clients also look at mirror images."""


def make_surrogates(
    side: ServerSide, budget: Budget, config: HardenConfig, clusters: int, warn: Callable[[str], None]
) -> Surrogates:
    """Harden shadow and server layers together on the server's images.

    `features`: clean and adversarial images are to have the features `o2` that the stale surrogate gives the clean one
    (cosine: what the attack turns away from). `clusters`: a linear head tells to which of so many clusters of `o2` the
    clean image belongs, and all three are trained on that as the clients train on labels. One crafting, the clients'
    own way, serves both. Where that overshoots the budget, `WITHIN` is hardened as `features` is, on images that do
    not. Where the clients' images take one more step, so do its own, away from its targets. Unlike the clients it sees
    both variants of an image in every epoch. Its batches are smaller in the proportion of its images to
    `config.images`, and so is its learning rate (linear scaling; Goyal et al., 2017): at the clients' own, batches this
    small make a surrogate that misleads little.

    It goes without a surrogate or a gate that diverges, which `warn` is told.
    """
    runtime, stale = side.runtime, composed(side.runtime, side.shadow, side.layers)
    mirrored = bool(settled(config, side.training).mirrored)
    images = side.images[: config.images]
    crafted, features = craft_to_harden(config, stale, images, overshot(budget, config), runtime, "adaptive")
    features = features.flatten(1)
    head, names = _clustered(features, clusters, runtime)
    variants, surrogates = torch.stack([images, crafted], 1), {}
    from_features = partial(_as_clients_see, turn_back, turned_from, config, budget)
    lessons = [
        ("features", variants, nn.Identity(), features, from_features),
        ("clusters", variants, head, names, partial(_as_clients_see, labels_of_all, cross_entropy, config, budget)),
    ]
    if config.overshoot > 1:
        within, _ = craft_to_harden(config, stale, images, budget, runtime, "adaptive within the budget")
        held_back = config.model_copy(update={"overshoot": 1.0})
        from_features = partial(_as_clients_see, turn_back, turned_from, held_back, budget)
        lessons.append((WITHIN, torch.stack([images, within], 1), nn.Identity(), features, from_features))
    batch_size = max(2, round(config.batch_size * len(images) / config.images))
    learning_rate = config.learning_rate * batch_size / config.batch_size
    config = config.model_copy(update={"batch_size": batch_size, "learning_rate": learning_rate})
    for name, shown, own_head, targets, loss in lessons:
        surrogate = nn.Sequential(deepcopy(side.shadow), deepcopy(side.layers), nn.Flatten(), own_head)
        with _going_without("one of its surrogates", warn):
            fine_tune(
                surrogate,
                [Share(shown, targets)],
                loss,
                config,
                side.training,
                runtime,
                f"adaptive {name}",
                passes=2 + config.stepped,
            )
            surrogates[name] = (surrogate[0], surrogate[1])
    suspicion = None
    if config.gate:
        with _going_without("a gate of its own", warn):
            gate = new_gate(images.shape[1], runtime, "adaptive gate")
            gate.learn([Share(variants, names)], budget, config, side.training, runtime, "adaptive gate")
            suspicion = gate
    return Surrogates(surrogates, suspicion, mirrored)


@contextmanager
def _going_without(what: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Skip the rest of what diverges in here, which makes the server weaker: `warn` is told."""
    try:
        yield
    except DivergenceError as error:
        warn(f"The adaptive server goes without {what}, so it is weaker. {error}")


def turn_back(model: Learner, pixels: Tensor, features: Tensor, _generator: torch.Generator) -> Tensor:
    """One minus the cosine between the features of every variant (V, N, C, H, W) and those given (N, D), mean."""
    return 1 - F.cosine_similarity(model(pixels.flatten(0, 1)), features.repeat(len(pixels), 1), dim=1).mean()


def _as_clients_see(
    loss: Loss,
    away: Callable[[Tensor], Objective],
    config: HardenConfig,
    budget: Budget,
    model: Learner,
    pixels: Tensor,
    targets: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """The loss of images (2, N, C, H, W), clean and attacked, as the clients see these but for their strength."""
    clean, attacked = pixels
    attacked = to_harden_on(config, model.settled, clean, attacked, away, targets, budget, generator)
    return loss(model, torch.stack([clean, attacked]), targets, generator)


def _clustered(features: Tensor, clusters: int, runtime: Runtime) -> tuple[nn.Module, Tensor]:
    """k-means of features (M, D): a linear head that names the nearest centre, and its answers (M,).

    There are fewer clusters where images are fewer than two for each.
    """
    from sklearn.cluster import KMeans  # slow to import, and only needed here

    clusters = max(1, min(clusters, len(features) // 2))
    found = KMeans(clusters, n_init=4, random_state=derive_seed(runtime.seed, "clusters") % 2**32).fit(features.numpy())
    centres = torch.as_tensor(found.cluster_centers_)
    # The class in a mixture of equal round clouds is linear in f: (c.f - |c|^2 / 2) / variance. The root of the
    # dimension keeps softmax from being certain of everything.
    # Where features coincide, nothing but the floor does.
    least = max(TIGHTEST * float(features.square().mean()), torch.finfo(features.dtype).eps)
    softness = max(float(found.inertia_) / features.numel(), least) * features.shape[1] ** 0.5
    with isolated_global_rng(runtime.seed, "clusters"):
        head = nn.Linear(features.shape[1], clusters)
    head.load_state_dict({"weight": centres / softness, "bias": -centres.square().sum(1) / (2 * softness)})
    return runtime.place(head), torch.as_tensor(found.labels_).long()
