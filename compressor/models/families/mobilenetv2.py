"""MobileNetV2 with its strides set for small pictures; students of any width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from compressor.core.contracts import ModelFamily, Recognition
from compressor.core.types import ModelSpec
from compressor.models.families._layers import conv3x3, pooled, require_relu
from compressor.models.families._names import block_count, rows, scaled_channels, width_multiplier, with_width

NAME = "mobilenetv2"

# Expansion, channels, blocks, stride of the first block. The paper's table, with stride 1 in the stem and in the
# second group, since a picture has 32 pixels a side and not 224.
_GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STEM, _LAST = 32, 1280


class InvertedResidual(nn.Module):
    """Expand by a 1 x 1, filter depthwise by a 3 x 3, project by a 1 x 1 convolution without activation.

    At stride 1 the input is added, projected where the channels change (the CIFAR port's addition to the paper).
    """

    def __init__(self, in_channels: int, channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = expansion * in_channels
        self.conv1 = nn.Conv2d(in_channels, inner, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, kernel_size=3, stride=stride, padding=1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, channels, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.residual = stride == 1
        self.shortcut = nn.Sequential()
        if self.residual and in_channels != channels:
            self.shortcut.append(nn.Conv2d(in_channels, channels, kernel_size=1, bias=False))
            self.shortcut.append(nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, channels, H / stride, W / stride]``."""
        out = torch.relu_(self.bn1(self.conv1(x)))
        out = torch.relu_(self.bn2(self.conv2(out)))
        out = cast(Tensor, self.bn3(self.conv3(out)))
        return out + self.shortcut(x) if self.residual else out


class MobileNetV2(nn.Module):
    """A 3 x 3 stem, seventeen inverted residuals, a 1 x 1 convolution, and a linear classifier.

    Source: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2; the names of the
    state dict are those of the common CIFAR port, which uses ReLU and not ReLU6.

    Args:
        channels: of the stem, of each of the seven groups, and of the last convolution: nine numbers.
        classes: how many logits.
    """

    def __init__(self, channels: tuple[int, ...], classes: int) -> None:
        super().__init__()
        stem, *groups, last = channels
        self.conv1 = conv3x3(3, stem)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layers = nn.Sequential()
        current = stem
        for (expansion, _, blocks, first_stride), width in zip(_GROUPS, groups, strict=True):
            for block in range(blocks):
                self.layers.append(InvertedResidual(current, width, expansion, first_stride if block == 0 else 1))
                current = width
        self.conv2 = nn.Conv2d(current, last, kernel_size=1, bias=False)
        self.bn2 = nn.BatchNorm2d(last)
        self.linear = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[B, 3, H, W]`` to logits ``[B, K]``."""
        out = self.layers(torch.relu_(self.bn1(self.conv1(x))))
        out = torch.relu_(self.bn2(self.conv2(out)))
        return cast(Tensor, self.linear(pooled(out)))


def channels_of(multiplier: float) -> tuple[int, ...]:
    """The nine channel counts at a width multiplier: each a multiple of 8, the last one never below 1280.

    Source: Sandler et al. 2018, section 4: multipliers below 1 spare the last convolution.
    """
    groups = (scaled_channels(channels, multiplier) for _, channels, _, _ in _GROUPS)
    return (scaled_channels(_STEM, multiplier), *groups, scaled_channels(_LAST, max(1.0, multiplier)))


def _build(spec: ModelSpec) -> nn.Module:
    require_relu(spec)
    return MobileNetV2(channels_of(width_multiplier(spec.name, NAME)), spec.classes)


def _recognise(state: Mapping[str, Tensor]) -> Recognition | None:
    classes = rows(state, "linear.weight", 2)
    if not classes or block_count(state, "layers.") != sum(blocks for _, _, blocks, _ in _GROUPS):
        return None
    first_blocks = [sum(blocks for _, _, blocks, _ in _GROUPS[:group]) for group in range(len(_GROUPS))]
    groups = (rows(state, f"layers.{block}.conv3.weight", 4) for block in first_blocks)
    multiplier = _multiplier((rows(state, "conv1.weight", 4), *groups, rows(state, "conv2.weight", 4)))
    return None if multiplier is None else Recognition(with_width(NAME, multiplier), classes, state)


def _multiplier(channels: tuple[int, ...]) -> float | None:
    """The roundest multiplier, in thousandths, that gives these channels."""
    stem = channels[0]
    near = range(max(1, 1000 * (stem - 8) // _STEM), min(8000, 1000 * (stem + 8) // _STEM) + 1)
    for thousandths in sorted(near, key=lambda n: (n % 250 != 0, n % 100 != 0, n % 50 != 0, n % 10 != 0, n)):
        if channels_of(thousandths / 1000) == channels:
            return thousandths / 1000
    return None


FAMILY = ModelFamily(form="mobilenetv2[-WIDTH]", example="mobilenetv2-0.1", build=_build, recognise=_recognise)
