"""What fitted shadow layers minimise: how unlike the recorded features theirs are.

Each objective is made from the `Evidence` and called for a `Batch` of the server's own images.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from splitaudit.adversary.alignment.evidence import BATCH, Evidence, Features
from splitaudit.adversary.alignment.objective import Batch, Objective
from splitaudit.adversary.alignment.translation import translation
from splitaudit.adversary.moments import LEAST, Moments, channel_rows
from splitaudit.learning.state import State, join, load_optimizer_state, optimizer_state, part
from splitaudit.models.stages import Stages
from splitaudit.randomness import derive_generator, isolated_global_rng


def moments(evidence: Evidence) -> Objective:
    """Mean and covariance of the channels, at the cut and after each stage, without the noise of small batches."""

    def objective(batch: Batch) -> Tensor:
        pairs = zip(evidence.references, batch.features, strict=True)
        return evidence.total(reference.batch_distance(found) for reference, found in pairs)

    return Objective(objective)


def neighbours(evidence: Evidence) -> Objective:
    """Covariance between the channels at a place and those at its neighbours, wherever features are maps.

    It sees how features are laid out, which `moments` does not. Source: texture synthesis by Gram matrices of shifted
    features (Berger & Memisevic, ICLR 2017); without the noise of small batches, as in `moments`. Zero without maps.
    """
    batches = evidence.activations.split(BATCH)
    with torch.no_grad():
        recorded = [_lagged(evidence, evidence.features(batch)) for batch in batches]
    sizes = torch.tensor([len(batch) for batch in batches]).to(evidence.activations.device) / len(evidence.activations)
    expected = [torch.einsum("n,n...->...", sizes, torch.stack(stage)) for stage in zip(*recorded, strict=True)]

    def objective(batch: Batch) -> Tensor:
        halves = zip(*(tensor.tensor_split(2) for tensor in batch.features), strict=True)
        pairs = zip(*(_lagged(evidence, half) for half in halves), expected, strict=True)
        losses = [
            ((one - wanted) * (other - wanted)).sum((1, 2)).mean() / wanted.shape[-1] for one, other, wanted in pairs
        ]
        return torch.stack([_nothing(batch), *losses]).sum()

    return Objective(objective)


def batch_norm(evidence: Evidence) -> Objective:
    """The statistics that BatchNorm layers of the server keep of the clients' features: nothing need be recorded.

    Mean square of the differences of means, in running deviations, and of the log deviations, averaged over channels
    and layers. Source: as in DeepInversion (Yin et al., CVPR 2020). Zero for server layers without BatchNorm.
    """
    norms, watched = Stages(evidence.layers).tap_norms()

    def objective(batch: Batch) -> Tensor:
        with evidence.runtime.autocast():
            received = watched.eval()(batch.features[0])
        losses = [_nothing(batch)]
        for norm, value in zip(norms, received, strict=True):
            rows = value.float().transpose(0, 1).flatten(1)
            assert norm.running_mean is not None, "`tap_norms` gives those that keep them"
            assert norm.running_var is not None, "`tap_norms` gives those that keep them"
            deviation = (norm.running_var + norm.eps).sqrt()
            shift = (rows.mean(1) - norm.running_mean) / deviation
            ratio = 0.5 * ((rows.var(1) + norm.eps) / deviation.square()).log()
            losses.append((shift.square() + ratio.square()).mean() / len(norms))
        return torch.stack(losses).sum()

    return Objective(objective)


def mmd(evidence: Evidence) -> Objective:
    """Maximum mean discrepancy with a sum of Gaussian kernels, at the cut and after each stage.

    Unbiased, between descriptors of samples: a stage's features averaged over a 4x4 grid and standardised. The widths
    are 0.25, 1 and 4 times the recorded median distance. Source: Gretton et al., JMLR 2012.
    """
    with torch.no_grad():
        recorded = evidence.features(evidence.activations[-512:])
    described = [_describe(reference, stage) for reference, stage in zip(evidence.references, recorded, strict=True)]
    medians = [torch.pdist(stage).square().median().clamp_min(LEAST) for stage in described]

    def objective(batch: Batch) -> Tensor:
        generator = derive_generator(evidence.runtime.seed, "mmd", batch.step)
        losses = []
        for reference, theirs, median, stage in zip(
            evidence.references, described, medians, batch.features, strict=True
        ):
            own = _describe(reference, stage)
            chosen = torch.randint(len(theirs), (len(own),), generator=generator)
            losses.append(_discrepancy(own, theirs[chosen], median))
        return torch.stack(losses).sum()

    return Objective(objective)


def discriminator(evidence: Evidence) -> Objective:
    """A small network learns to tell the shadow's activations from recorded ones, and the shadow to deceive it.

    Least squares loss (Mao et al., ICCV 2017), as FSHA and FORA use a discriminator on activations.
    """
    judge = evidence.runtime.place(_judge(evidence.activations[0], evidence.runtime.seed))
    optimizer = torch.optim.Adam([{"params": list(judge.parameters())}], lr=1e-3, betas=(0.5, 0.99), fused=True)
    yardstick = evidence.references[0]

    def verdict(activations: Tensor) -> Tensor:
        with evidence.runtime.autocast():
            scores: Tensor = judge(yardstick.standardized(activations))
        return scores.float()

    def objective(batch: Batch) -> Tensor:
        own = batch.features[0]
        generator = derive_generator(evidence.runtime.seed, "discriminator", batch.step)
        theirs = evidence.activations[torch.randint(len(evidence.activations), (len(own),), generator=generator)]
        loss = (verdict(theirs) - 1).square().mean() + verdict(own.detach()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        judge.requires_grad_(False)
        deceived = (verdict(own) - 1).square().mean()
        judge.requires_grad_(True)
        return deceived

    def state() -> State:
        return join(judge=judge.state_dict(), optimizer=optimizer_state(optimizer))

    def load_state(state: State) -> None:
        judge.load_state_dict(part(state, "judge"))
        load_optimizer_state(optimizer, part(state, "optimizer"))

    return Objective(objective, state=state, load_state=load_state)


OBJECTIVES: dict[str, Callable[[Evidence], Objective]] = {
    "moments": moments,
    "neighbours": neighbours,
    "batch_norm": batch_norm,
    "mmd": mmd,
    "discriminator": discriminator,
    "translation": translation,
}


def _nothing(batch: Batch) -> Tensor:
    """Zero, with a gradient of zeros: for server layers that have nothing to compare."""
    return 0 * batch.features[0].float().sum()


def _lagged(evidence: Evidence, features: Features) -> list[Tensor]:
    """For each stage with maps, covariances (4, C, C) of its standardised channels with those of the next places."""
    found = []
    for reference, stage in zip(evidence.references, features, strict=True):
        if stage.dim() != 4 or min(stage.shape[2:]) < 2:
            continue
        maps = reference.standardized(stage)
        above, below, left, right = maps[..., :-1, :], maps[..., 1:, :], maps[..., :-1], maps[..., 1:]
        pairs = [(above, below), (left, right), (above[..., :-1], below[..., 1:]), (above[..., 1:], below[..., :-1])]
        rows = [(channel_rows(one), channel_rows(other)) for one, other in pairs]
        found.append(torch.stack([one.mT @ other / len(one) for one, other in rows]))
    return found


def _describe(reference: Moments, features: Tensor) -> Tensor:
    standardized = reference.standardized(features)
    return (F.adaptive_avg_pool2d(standardized, 4) if features.dim() == 4 else standardized).flatten(1)


def _discrepancy(first: Tensor, second: Tensor, median: Tensor) -> Tensor:
    n = len(first)
    distances = torch.cdist(torch.cat([first, second]), torch.cat([first, second])).square()
    kernel = torch.stack([torch.exp(-distances / (2 * width * median)) for width in (0.25, 1.0, 4.0)]).sum(0)
    within = [block.sum() - block.diagonal().sum() for block in (kernel[:n, :n], kernel[n:, n:])]
    between = kernel[:n, n:].mean()
    return torch.stack(within).sum() / (n * (n - 1)) - 2 * between


def _judge(activations: Tensor, seed: int) -> nn.Module:
    channels = activations.shape[0]
    with isolated_global_rng(seed, "discriminator"):
        if activations.dim() != 3:
            return nn.Sequential(nn.Linear(channels, 128), nn.LeakyReLU(0.2), nn.Linear(128, 1))
        return nn.Sequential(
            nn.Conv2d(channels, 64, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 128, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(128, 1, 3, padding=1),
        )
