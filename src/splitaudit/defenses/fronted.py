"""A model behind a front: images are changed, at random or not, before it sees them."""

import torch
from torch import Tensor, nn


class Fronted(nn.Module):
    """Pixels (N, C, H, W) to the logarithm of the mean prediction over `copies` images that `front` makes of each."""

    def __init__(self, front: nn.Module, model: nn.Module, copies: int) -> None:
        super().__init__()
        self.front, self.model, self.copies = front, model, copies

    def forward(self, images: Tensor) -> Tensor:
        predictions = torch.stack([self.model(self.front(images)).softmax(1) for _ in range(self.copies)])
        return predictions.mean(0).clamp_min(torch.finfo(predictions.dtype).tiny).log()
