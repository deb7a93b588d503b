"""CIFAR variants of torchvision's networks: a 3x3 stem of stride 1 without pooling, for small images.

Strides and widths follow github.com/kuangliu/pytorch-cifar, the usual CIFAR variants; layers and
initialisation are torchvision's.
"""

from typing import Literal

from torch import nn
from torchvision.models.densenet import DenseNet
from torchvision.models.efficientnet import EfficientNet, MBConvConfig
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.resnet import BasicBlock, ResNet


def resnet18(num_classes: int, channels: int, width: int) -> nn.Module:
    """ResNet-18 with `width` channels in its first stage (64 in the original), doubled in each later one."""
    model = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)
    model.inplanes = width
    model.conv1 = _stem(channels, width)
    model.bn1 = nn.BatchNorm2d(width)
    model.maxpool = nn.Identity()
    model.layer1 = model._make_layer(BasicBlock, width, 2)
    model.layer2 = model._make_layer(BasicBlock, 2 * width, 2, stride=2)
    model.layer3 = model._make_layer(BasicBlock, 4 * width, 2, stride=2)
    model.layer4 = model._make_layer(BasicBlock, 8 * width, 2, stride=2)
    model.fc = nn.Linear(8 * width, num_classes)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model  # type: ignore[no-any-return]


def mobilenetv2(num_classes: int, channels: int) -> nn.Module:
    """MobileNetV2 with stride 1 in the stem and in the 24-channel stage, 1,280 features, and no dropout."""
    stages = [
        # expansion, channels, blocks, stride
        [1, 16, 1, 1],
        [6, 24, 2, 1],
        [6, 32, 3, 2],
        [6, 64, 4, 2],
        [6, 96, 3, 1],
        [6, 160, 3, 2],
        [6, 320, 1, 1],
    ]
    model = MobileNetV2(num_classes=num_classes, inverted_residual_setting=stages, dropout=0.0)
    model.features[0][0] = _stem(channels, 32)
    return model  # type: ignore[no-any-return]


def densenet(num_classes: int, channels: int) -> nn.Module:
    """DenseNet-BC with growth 12, blocks of 6, 12, 24 and 16 layers, and 384 features."""
    model = DenseNet(growth_rate=12, block_config=(6, 12, 24, 16), num_init_features=24, num_classes=num_classes)
    model.features.conv0 = _stem(channels, 24, mode="fan_in")
    del model.features.pool0
    return model  # type: ignore[no-any-return]


def efficientnet_b0(num_classes: int, channels: int) -> nn.Module:
    """EfficientNet-B0 with stride 1 in the stem, its dropout of 0.2, and no stochastic depth."""
    stages = [
        # expansion, kernel, stride, input channels, output channels, blocks
        MBConvConfig(1, 3, 1, 32, 16, 1),
        MBConvConfig(6, 3, 2, 16, 24, 2),
        MBConvConfig(6, 5, 2, 24, 40, 2),
        MBConvConfig(6, 3, 2, 40, 80, 3),
        MBConvConfig(6, 5, 1, 80, 112, 3),
        MBConvConfig(6, 5, 2, 112, 192, 4),
        MBConvConfig(6, 3, 1, 192, 320, 1),
    ]
    model = EfficientNet(stages, dropout=0.2, stochastic_depth_prob=0.0, num_classes=num_classes)
    model.features[0][0] = _stem(channels, 32)
    return model  # type: ignore[no-any-return]


def _stem(channels: int, width: int, mode: Literal["fan_in", "fan_out"] = "fan_out") -> nn.Conv2d:
    """The first convolution, initialised as torchvision initialises it."""
    conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode=mode, nonlinearity="relu")
    return conv
