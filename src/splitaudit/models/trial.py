"""Trying a split model on two images, so that no training starts with one that cannot take them."""

import copy

import torch
from torch import Tensor, nn

from splitaudit.errors import ModelError
from splitaudit.models.tracing import first_line
from splitaudit.randomness import derive_generator, isolated_global_rng


@torch.no_grad()
def try_out(
    modules: nn.ModuleList, model: str, *, image_shape: tuple[int, int, int], num_classes: int, seed: int
) -> tuple[Tensor, Tensor]:
    """o1 and o2 of two random images in eval mode, for `modules` F1, F2, F3 and whole, whose name is `model`.

    Both modes are tried, on copies: the modules' own buffers and mode stay as they are.

    Raises ModelError for images that the model cannot take, an output that is not (N, num_classes), a part
    that overwrites what it receives or does not return a tensor with a row per image, and for parts that
    together differ from the whole.
    """
    size = "x".join(map(str, image_shape))
    images = torch.rand(2, *image_shape, generator=derive_generator(seed, "trial images"))
    for training in (True, False):
        F1, F2, F3, whole = copy.deepcopy(modules).train(training)
        with isolated_global_rng(seed, "trial"):
            o1 = _call(F1, images, f"{model} with images of {size}: its input layers")
            o2 = _call(F2, o1, f"{model} with images of {size}: its server layers")
            scores = _call(F3, o2, f"{model} with images of {size}: its output layers")
    if scores.shape != (2, num_classes):
        raise ModelError(
            f"{model} returns {tuple(scores.shape)} for 2 images of {size}; it must return one score for "
            f"each of the {num_classes} classes, (2, {num_classes})."
        )
    with isolated_global_rng(seed, "trial"):
        if not torch.equal(scores, whole(images)):
            raise ModelError(
                f"{model} computes something else once it is cut. Its forward must do the same operations "
                "whenever it is called: without asking for its input's type, and with no state but buffers."
            )
    return o1, o2


def _call(part: nn.Module, value: Tensor, subject: str) -> Tensor:
    version = value._version
    try:
        result = part(value)
    except Exception as error:  # the model may be the user's code: it may raise anything
        mode = "train" if part.training else "eval"
        raise ModelError(
            f"{subject} fail in {mode} mode: {first_line(error)} Set another data.size or data.channels, or "
            "take another model."
        ) from error
    if value._version != version:
        raise ModelError(
            f"{subject} overwrite what they receive. Move the cut, or make the operation after it not in place."
        )
    if not (isinstance(result, Tensor) and result.is_floating_point() and result.shape[:1] == (2,)):
        raise ModelError(
            f"{subject} do not return one floating-point tensor with a row for each image. Move the cut: "
            "`splitaudit cuts` lists all legal ones."
        )
    return result
