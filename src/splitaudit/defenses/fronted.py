"""A model behind a front: images are changed, at random or not, before it sees them."""

import torch
from torch import Tensor, nn

from splitaudit.randomness import SampleNoise


class Front(nn.Module):
    """What images go through, with draws for each of them, from a seed: in whatever batches they come, the same."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed
        self.begin_again()

    def begin_again(self) -> None:
        """The next images get the draws that the first ones got."""
        self._generator = torch.Generator().manual_seed(self._seed)

    def noise(self, images: Tensor) -> SampleNoise:
        """Where the draws for images (N, C, H, W) come from."""
        return SampleNoise(len(images), self._generator, images.device)


def begin_again(model: nn.Module) -> None:
    """All fronts in the model make the draws again that they began with."""
    for module in model.modules():
        if isinstance(module, Front):
            module.begin_again()


class Fronted(nn.Module):
    """Pixels (N, C, H, W) to the logarithm of the mean prediction over `copies` images that `front` makes of each."""

    def __init__(self, front: Front, model: nn.Module, copies: int) -> None:
        super().__init__()
        self.front, self.model, self.copies = front, model, copies

    def forward(self, images: Tensor) -> Tensor:
        changed = self.front(images.repeat_interleave(self.copies, 0)).split(len(images))
        predictions = torch.cat([self.model(some).softmax(1) for some in changed]).unflatten(0, (-1, self.copies))
        said: Tensor = predictions.mean(1).clamp_min(torch.finfo(predictions.dtype).tiny).log()
        return said
