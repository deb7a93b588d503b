"""A small server to align to: photographs, input layers of a known kind, and what was recorded of them."""

from functools import cache

import torch
from torch import Tensor, fx, nn

from splitaudit.adversary.alignment.evidence import Evidence
from splitaudit.adversary.moments import RunningMoments
from splitaudit.adversary.recorder import Recording
from splitaudit.config import AlignmentConfig
from splitaudit.data import pixel_statistics
from splitaudit.data.sources import load_images
from splitaudit.models import Normalize, cut
from splitaudit.randomness import isolated_global_rng
from splitaudit.runtime import Runtime

RUNTIME = Runtime(torch.device("cpu"), "float32", 5)
SIZE = 16
SHORT = AlignmentConfig(steps=5)
"""What an inverse takes no time with."""


@cache
def photographs(colours: int) -> Tensor:
    """All patches, uint8 (N, colours, 16, 16), shuffled: the first are the clients', the last the server's."""
    images = load_images("patches", "pool", None).adapt(SIZE, colours).images
    return images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]


def input_layers(images: Tensor, *layers: nn.Module) -> nn.Module:
    """`Normalize` for these images and the layers, which get random weights and statistics; in eval mode."""
    model = nn.Sequential(Normalize(*pixel_statistics(images)), *layers)
    with isolated_global_rng(0, "test"):
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                layer.reset_parameters()
            elif isinstance(layer, nn.BatchNorm2d):
                layer.weight.data.uniform_(0.5, 2)
                layer.bias.data.normal_()
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2)
    return model.eval().requires_grad_(False)


def server_layers(channels: int) -> fx.GraphModule:
    """Two convolutions with BatchNorm, pooled."""
    with isolated_global_rng(1, "test"):
        model = nn.Sequential(
            nn.Identity(),
            nn.Conv2d(channels, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(48, 3),
        )
    layers = cut(model, "0", "8").F2
    assert isinstance(layers, fx.GraphModule)
    return layers


def recording_of(activations: Tensor) -> Recording:
    """As a server would have it that saw these."""
    running = RunningMoments()
    running.add(activations)
    return Recording(activations, running.moments())


def evidence_of(activations: Tensor, images: Tensor, config: AlignmentConfig = SHORT) -> Evidence:
    """What a server with these images has. Its layers keep the BatchNorm statistics of the activations."""
    layers = server_layers(activations.shape[1]).train()
    for norm in (module for module in layers.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.momentum = 1.0
    with torch.no_grad():
        layers(activations)
    return Evidence(recording_of(activations), layers, images, config, RUNTIME)
