"""`input-transform`: images are compressed, coarsened or resized at random before the delivered model sees them.

JPEG and bit depth: Guo et al., ICLR 2018, and Xu et al., NDSS 2018; random resizing: Xie et al., ICLR 2018. Broken
since by attackers who go through the transform: past what has no gradient as if it were not there (BPDA; Athalye et
al., ICML 2018), and with the mean gradient over random copies (EOT, ibid.). So these fronts let gradients through.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.io import decode_jpeg, encode_jpeg

from splitaudit.attacks.transforms import along_axes, shrink_matrices, smaller
from splitaudit.defenses.after_settings import InputTransformConfig
from splitaudit.defenses.fronted import Front
from splitaudit.defenses.view import Cost, DeliveredView, Trained


def unchanged(_config: InputTransformConfig, view: DeliveredView) -> Trained:
    """The delivered model as it is."""
    return Trained(view.model.whole, Cost())


class Transform(Front):
    """The transforms of `config`, one after the other: pixels (N, C, H, W) in [0, 1] to such pixels."""

    def __init__(self, config: InputTransformConfig, seed: int) -> None:
        super().__init__(seed)
        self._config = config

    def forward(self, images: Tensor) -> Tensor:
        for name in self._config.transforms:
            match name:
                case "jpeg":
                    images = _straight_through(lambda x: jpeg(x, self._config.quality), images)
                case "bit-depth":
                    images = _straight_through(lambda x: coarsen(x, self._config.bits), images)
                case "resize":
                    images = self._resized(images)
        return images

    def _resized(self, images: Tensor) -> Tensor:
        draws = self.noise(images).uniform(torch.Size((len(images), 3)), images.dtype)
        size, top, left = draws.add(1).div(2).unbind(1)
        always = torch.ones(len(images), dtype=torch.bool, device=images.device)
        rows, columns = (
            shrink_matrices(n, *smaller(n, self._config.smallest, size, offset, last=True), always)
            for n, offset in ((images.shape[2], top), (images.shape[3], left))
        )
        return along_axes(images, rows, columns)


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Pixels (N, C, H, W), compressed and decoded again."""
    coded = [decode_jpeg(encode_jpeg(image, quality)) for image in (images * 255).round().to("cpu", torch.uint8)]
    decoded: Tensor = torch.stack(coded) / 255
    return decoded.to(images)


def coarsen(images: Tensor, bits: int) -> Tensor:
    """Pixels in [0, 1] rounded to so many bits."""
    levels: int = 2**bits - 1
    return (images * levels).round() / levels


def _straight_through(transform: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The transform, with the gradient of the identity."""
    return images + (transform(images.detach()) - images).detach()
