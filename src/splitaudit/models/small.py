"""The two small networks: fast enough to train on a CPU."""

import torch
from torch import Tensor, nn


class ResNet9(nn.Module):
    """The nine-layer residual network of David Page's DAWNBench entry (github.com/davidcpage/cifar10-fast).

    Input (N, channels, H, W), H and W at least 8; output (N, num_classes). `width` channels in the stem, 2, 4
    and 8 times as many after it (64 in the original). The logits are scaled by 0.125, and pooling comes before
    BatchNorm and ReLU, which then work on a quarter of the pixels, as there.
    """

    def __init__(self, num_classes: int, channels: int, width: int) -> None:
        super().__init__()
        self.prep = _conv_block(channels, width)
        self.layer1 = nn.Sequential(_conv_block(width, 2 * width, nn.MaxPool2d(2)), _Residual(2 * width))
        self.layer2 = _conv_block(2 * width, 4 * width, nn.MaxPool2d(2))
        self.layer3 = nn.Sequential(_conv_block(4 * width, 8 * width, nn.MaxPool2d(2)), _Residual(8 * width))
        self.linear = nn.Linear(8 * width, num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.prep(x))))
        scores: Tensor = self.linear(_global_max_pool(x))
        return scores * 0.125


class Cnn(nn.Module):
    """Two convolutions, each with BatchNorm and ReLU, and a linear layer: for images of 8x8 and larger.

    Input (N, channels, H, W), H and W at least 2; output (N, num_classes). `width` channels, then twice as
    many.
    """

    def __init__(self, num_classes: int, channels: int, width: int) -> None:
        super().__init__()
        self.block1 = nn.Sequential(*_conv_block(channels, width), nn.MaxPool2d(2))
        self.block2 = _conv_block(width, 2 * width)
        self.linear = nn.Linear(2 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.linear(_global_max_pool(self.block2(self.block1(x))))
        return scores


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(_conv_block(channels, channels), _conv_block(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        change: Tensor = self.branch(x)
        return x + change


def _conv_block(inputs: int, outputs: int, *pooling: nn.Module) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(convolution, *pooling, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _global_max_pool(x: Tensor) -> Tensor:
    # Not nn.AdaptiveMaxPool2d: PyTorch calls its gradient on CUDA nondeterministic.
    return torch.flatten(x.amax((2, 3), keepdim=True), 1)
