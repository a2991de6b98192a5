"""ResNet-18 with a 3x3 stem for small pictures; students of any width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from compressor.core.contracts import ModelFamily, Recognition
from compressor.core.types import ModelSpec
from compressor.models.families._layers import conv3x3, pooled, require_relu
from compressor.models.families._names import block_count, rows, scaled_channels, width_multiplier, with_width

NAME = "resnet18"


class BasicBlock(nn.Module):
    """``relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))``, the shortcut projected where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut.append(nn.Conv2d(in_channels, channels, kernel_size=1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, channels, H / stride, W / stride]``."""
        out = torch.relu_(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return torch.relu_(out + self.shortcut(x))


class ResNet18(nn.Module):
    """Four stages of two basic blocks, at strides 1, 2, 2, 2, on a 3 x 3 stem without pooling.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", section 4.2 for the small stem; the names
    of the state dict are those of the common CIFAR port.

    Args:
        channels: of the first stage; each later stage doubles them.
        classes: how many logits.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(3, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.layer1 = _stage(channels, channels, stride=1)
        self.layer2 = _stage(channels, 2 * channels, stride=2)
        self.layer3 = _stage(2 * channels, 4 * channels, stride=2)
        self.layer4 = _stage(4 * channels, 8 * channels, stride=2)
        self.linear = nn.Linear(8 * channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[B, 3, H, W]`` to logits ``[B, K]``."""
        out = torch.relu_(self.bn1(self.conv1(x)))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        return cast(Tensor, self.linear(pooled(out)))


def _stage(in_channels: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(in_channels, channels, stride), BasicBlock(channels, channels, 1))


def _build(spec: ModelSpec) -> nn.Module:
    require_relu(spec)
    return ResNet18(scaled_channels(64, width_multiplier(spec.name, NAME)), spec.classes)


def _recognise(state: Mapping[str, Tensor]) -> Recognition | None:
    channels, classes = rows(state, "conv1.weight", 4), rows(state, "linear.weight", 2)
    # The pre-activation ResNet of the same port has no `bn1` beside its stem; deeper ones have a `conv3` in a block.
    ours = channels > 0 and channels % 8 == 0 and classes > 0 and "bn1.weight" in state
    bottleneck = "layer1.0.conv3.weight" in state
    blocks = [block_count(state, f"layer{stage}.") for stage in (1, 2, 3, 4)]
    if not ours or bottleneck or blocks != [2, 2, 2, 2]:
        return None
    return Recognition(with_width(NAME, channels / 64), classes, state)


FAMILY = ModelFamily(form="resnet18[-WIDTH]", example="resnet18-0.125", build=_build, recognise=_recognise)
