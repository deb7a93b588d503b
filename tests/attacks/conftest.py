"""A small real model: a narrow cnn trained on handwritten digits for a second, and images it has not seen."""

from dataclasses import dataclass

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from splitaudit.models.small import Cnn


@dataclass(frozen=True)
class Trained:
    """In float64, so that two implementations of one attack can be compared to rounding."""

    model: nn.Module
    images: Tensor
    """500 test images (500, 3, 8, 8) in [0, 1]."""
    labels: Tensor


@pytest.fixture(scope="session")
def trained() -> Trained:
    digits = load_digits()
    images = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1).repeat(1, 3, 1, 1)
    labels = torch.tensor(digits.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Cnn(num_classes=10, channels=3, width=8)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(8):
            for batch in torch.randperm(len(images) - 500).split(64):
                optimizer.zero_grad()
                F.cross_entropy(model(images[batch]), labels[batch]).backward()
                optimizer.step()
    model.requires_grad_(False).double().eval()
    return Trained(model, images[-500:].double(), labels[-500:])
