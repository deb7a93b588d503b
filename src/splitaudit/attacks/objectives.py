"""What an attack increases.

An objective binds to a function and the clean images, and gives the loss to climb: `objective(function, x)(z)` is a
loss for each sample of z, shaped (N,). Its gradient is climbed; by its value, restarts and step schedules choose
between images.

Without labels, the function gives features, (N, ...), or a tuple of them from several layers: their losses are added.
With labels, it gives logits, (N, classes).
"""

from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor
from torch.nn import functional as F

Function = Callable[[Tensor], Tensor | tuple[Tensor, ...]]
Loss = Callable[[Tensor], Tensor]
Objective = Callable[[Function, Tensor], Loss]


def _label_free(change: Callable[[Tensor, Tensor], Tensor]) -> Objective:
    """The objective from what the features of one layer have changed: `change(features, clean)` is a loss (N,)."""

    @wraps(change)
    def objective(function: Function, x: Tensor) -> Loss:
        with torch.no_grad():
            clean = _layers(function(x))

        def loss(z: Tensor) -> Tensor:
            return _added([change(now, before) for now, before in zip(_layers(function(z)), clean, strict=True)])

        return loss

    return objective


@_label_free
def cosine_shift(features: Tensor, clean: Tensor) -> Tensor:
    """Turn the features away from those of the clean image: SLADV's label-free objective (Algorithm 2, line 4).

    Minus the cosine similarity of `function(z)` and `function(x)`, features flattened; in [-1, 1].
    """
    return _turned(features, clean)


def cosine_shift_from(reference: Function) -> Objective:
    """Turn the features away as `cosine_shift` does, from those that `reference` gives the clean images.

    For a `function` that draws at random, of which one draw is no reference.
    """

    def objective(function: Function, x: Tensor) -> Loss:
        with torch.no_grad():
            (clean,) = _layers(reference(x))

        def loss(z: Tensor) -> Tensor:
            (features,) = _layers(function(z))
            return _turned(features, clean)

        return loss

    return objective


def unnoticed(weight: float) -> Objective:
    """Turn the features away as `cosine_shift` does, and pass for clean with a detector.

    `function` gives features, of one or several layers, and last the detector's logit (N,) that an image was attacked;
    the loss is less by `weight` times the detector's cross-entropy for a clean one.
    """

    def objective(function: Function, x: Tensor) -> Loss:
        with torch.no_grad():
            *clean, _ = function(x)

        def loss(z: Tensor) -> Tensor:
            *features, logit = function(z)
            turned = [_turned(now, before) for now, before in zip(features, clean, strict=True)]
            return _added(turned) - weight * F.softplus(logit)

        return loss

    return objective


@_label_free
def feature_distance(features: Tensor, clean: Tensor) -> Tensor:
    """Move the features away from the clean image's: their Euclidean distance, not below 0."""
    distance: Tensor = torch.linalg.vector_norm((features - clean).flatten(1), dim=1)
    return distance


@_label_free
def dispersion_reduction(features: Tensor, _clean: Tensor) -> Tensor:
    """Flatten the features: minus their standard deviation over each sample's whole map (Lu et al., CVPR 2020)."""
    return -_positive(features.flatten(1).var(1, correction=0)).sqrt()


@_label_free
def feature_disruption(features: Tensor, clean: Tensor) -> Tensor:
    """FDA: raise what was weak and lower what was strong (Ganeshan et al., ICCV 2019).

    `log |features where clean < m| - log |features where clean >= m|`, with m the mean over the channels at each
    place of the clean map and |.| the L2 norm over a sample.
    """
    weak = clean < clean.mean(1, keepdim=True)
    energy = features.square()
    below, above = ((energy * mask).flatten(1).sum(1) for mask in (weak, ~weak))
    return 0.5 * (_positive(below).log() - _positive(above).log())


def intermediate_level(guide: Tensor) -> Objective:
    """ILA: go on in the direction in which an attack has moved the features (Huang et al., ICCV 2019).

    The projection `(f(z) - f(x)) . d / |d|` on `d = f(guide) - f(x)`, features flattened. Two stages: `guide`
    (N, C, H, W) are the images that a first attack made of the same `x`; one on a label-free objective keeps the whole
    label-free.
    """

    def objective(function: Function, x: Tensor) -> Loss:
        with torch.no_grad():
            clean, guided = _layers(function(x)), _layers(function(guide))
        ways = [F.normalize((g - c).flatten(1), dim=1) for g, c in zip(guided, clean, strict=True)]

        def loss(z: Tensor) -> Tensor:
            parts = zip(_layers(function(z)), clean, ways, strict=True)
            return _added([((features - c).flatten(1) * way).sum(1) for features, c, way in parts])

        return loss

    return objective


def cross_entropy(labels: Tensor) -> Objective:
    """Cross-entropy of `function`'s logits (N, classes) against `labels` (N,): the untargeted white-box objective.

    Its value ranks images: a misclassified one above any other, then by cross-entropy, which alone may rise without
    the class changing. (The value is c / (1 + c) + [misclassified], the gradient that of c.)
    """

    def loss(logits: Tensor) -> Tensor:
        entropy = F.cross_entropy(logits, labels, reduction="none")
        rank = entropy / (1 + entropy) + (logits.argmax(1) != labels)
        return rank.detach() + (entropy - entropy.detach())

    return _of_logits(loss)


def margin(labels: Tensor) -> Objective:
    """The largest other logit minus the label's (Carlini & Wagner, 2017): positive if and only if misclassified."""
    return _of_logits(lambda logits: _margin(logits, labels))


def dlr(labels: Tensor) -> Objective:
    """Difference of logits ratio (Croce & Hein, 2020): the margin over the span of the three largest logits.

    Blind to a rescaling of the logits, so it does not saturate as cross-entropy does; positive if and only if
    misclassified. With two classes there is no third logit, and the span of two would leave a ratio of +-1 without a
    gradient: there it is the margin itself.
    """

    def loss(logits: Tensor) -> Tensor:
        gain = _margin(logits, labels)
        if logits.shape[1] < 3:
            return gain
        largest = logits.topk(3, dim=1).values
        return gain / (largest[:, 0] - largest[:, 2]).clamp_min(1e-12)

    return _of_logits(loss)


def _of_logits(loss: Callable[[Tensor], Tensor]) -> Objective:
    def objective(function: Function, _x: Tensor) -> Loss:
        def of_images(z: Tensor) -> Tensor:
            logits = function(z)
            assert isinstance(logits, Tensor), "labels need logits, not features of several layers"
            return loss(logits)

        return of_images

    return objective


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    true = F.one_hot(labels, logits.shape[1]).bool()
    return logits.masked_fill(true, -torch.inf).amax(1) - logits[true]


def _layers(features: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (features,) if isinstance(features, Tensor) else features


def _turned(features: Tensor, clean: Tensor) -> Tensor:
    return -F.cosine_similarity(features.flatten(1), clean.flatten(1), dim=1)


def _added(losses: list[Tensor]) -> Tensor:
    return torch.stack(losses).sum(0)


def _positive(x: Tensor) -> Tensor:
    """Never zero, so that a root or a logarithm has a gradient."""
    return x.clamp_min(torch.finfo(x.dtype).tiny)
