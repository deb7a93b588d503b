"""Can a small network tell the activations of shadow layers from recorded ones? What a server knows besides its score.

The score compares means and covariances. A network that is trained to tell the two apart sees whatever differs in what
the channels say at one place; it sees one place at a time, since images of another kind than the clients' differ in
their contents, which is no fault of the shadow layers. Source: classifier two-sample tests (Lopez-Paz & Oquab, ICLR
2017).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitaudit.adversary.alignment.evidence import BATCH, Evidence
from splitaudit.adversary.moments import channel_rows
from splitaudit.randomness import derive_generator, isolated_global_rng

STEPS, ROWS, LEARNING_RATE = 200, 8192, 1e-3
"""Of the training, and places of either kind that a step sees."""


def told_apart(shadow: nn.Module, evidence: Evidence) -> float:
    """How well shadow layers, in eval mode, are told from the clients', by their activations of the server's images.

    The share of its uncertainty that the network loses, on images and samples that neither it nor the fit was trained
    on: 1 if it is never in doubt and right, 0, or a little less, if there is nothing to go by.
    """
    own, own_held = (_imitated(shadow, evidence, images) for images in (evidence.images, evidence.held_images))
    seed = evidence.runtime.seed
    with isolated_global_rng(seed, "two-sample test"):
        channels = own.shape[1]
        network = nn.Sequential(
            nn.Linear(channels, 128), nn.LeakyReLU(0.2), nn.Linear(128, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1)
        )
    judge = evidence.runtime.place(network)
    optimizer = torch.optim.Adam([{"params": list(judge.parameters())}], lr=LEARNING_RATE, fused=True)
    generator = derive_generator(seed, "two-sample test")
    for _ in range(STEPS):
        loss = _uncertainty(judge, evidence, _drawn(own, generator), _drawn(evidence.activations, generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        left = _uncertainty(judge, evidence, own_held, evidence.held_activations)
    return 1 - float(left)


@torch.no_grad()
def _imitated(shadow: nn.Module, evidence: Evidence, images: Tensor) -> Tensor:
    return torch.cat([evidence.imitate(shadow, evidence.runtime.pixels(batch)) for batch in images.split(BATCH)])


def _drawn(activations: Tensor, generator: torch.Generator) -> Tensor:
    """So many whole samples as have the places of a step, with repetition."""
    size = max(1, ROWS // activations[0, 0].numel())
    return activations[torch.randint(len(activations), (size,), generator=generator).to(activations.device)]


def _uncertainty(judge: nn.Module, evidence: Evidence, own: Tensor, theirs: Tensor) -> Tensor:
    """Cross-entropy of both kinds, in bits."""
    standardized = evidence.references[0].standardized
    with evidence.runtime.autocast():
        scores = [judge(channel_rows(standardized(each))).float() for each in (own, theirs)]
    return 0.5 * (F.softplus(scores[0]).mean() + F.softplus(-scores[1]).mean()) / torch.tensor(2.0).log()
