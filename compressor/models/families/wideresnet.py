"""WideResNet as the TRADES release writes it: the usual form of published robust teachers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from compressor.core.contracts import ModelFamily, Recognition
from compressor.core.types import ModelSpec
from compressor.models.families._layers import conv3x3, pooled, require_relu
from compressor.models.families._names import block_count, depth_and_width, rows

NAME = "wideresnet"


class BasicBlock(nn.Module):
    """A pre-activation block; where the channels change, the shortcut starts after the first activation.

    ``x + conv2(relu(bn2(conv1(relu(bn1(x))))))`` with equal channels, else, with ``a = relu(bn1(x))``,
    ``convShortcut(a) + conv2(relu(bn2(conv1(a))))``.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        # The name is the release's own: files are loaded by it.
        self.convShortcut: nn.Conv2d | None = None
        if in_channels != channels:
            self.convShortcut = nn.Conv2d(in_channels, channels, kernel_size=1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, channels, H / stride, W / stride]``."""
        activated = torch.relu(self.bn1(x))
        out = self.conv2(torch.relu(self.bn2(self.conv1(activated))))
        return cast(Tensor, out + (x if self.convShortcut is None else self.convShortcut(activated)))


class NetworkBlock(nn.Module):
    """One stage: ``blocks`` basic blocks, the first at ``stride``."""

    def __init__(self, blocks: int, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        rest = (BasicBlock(channels, channels, 1) for _ in range(blocks - 1))
        self.layer = nn.Sequential(BasicBlock(in_channels, channels, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, channels, H / stride, W / stride]``."""
        return cast(Tensor, self.layer(x))


class WideResNet(nn.Module):
    """Three stages of ``(depth - 4) / 6`` blocks with 16, 32 and 64 times ``width`` channels.

    Source: Zagoruyko and Komodakis 2016, "Wide Residual Networks"; names and initialisation are those of the TRADES
    release (Zhang et al. 2019), without dropout, which no robust release uses. Its ``sub_block1`` is left out: the
    release makes those parameters and never uses them.

    Args:
        depth: 6n + 4.
        width: the widening factor.
        classes: how many logits.
    """

    def __init__(self, depth: int, width: int, classes: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = conv3x3(3, 16)
        self.block1 = NetworkBlock(blocks, 16, 16 * width, stride=1)
        self.block2 = NetworkBlock(blocks, 16 * width, 32 * width, stride=2)
        self.block3 = NetworkBlock(blocks, 32 * width, 64 * width, stride=2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[B, 3, H, W]`` to logits ``[B, K]``."""
        out = self.block3(self.block2(self.block1(self.conv1(x))))
        return cast(Tensor, self.fc(pooled(torch.relu(self.bn1(out)))))


def _initialise(network: nn.Module) -> None:
    """He initialisation by fan-out for convolutions, zero bias for the classifier, as the release does."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def _build(spec: ModelSpec) -> nn.Module:
    require_relu(spec)
    depth, width = depth_and_width(spec.name, NAME)
    return WideResNet(depth, width, spec.classes)


def _recognise(state: Mapping[str, Tensor]) -> Recognition | None:
    channels, classes = rows(state, "block1.layer.0.conv1.weight", 4), rows(state, "fc.weight", 2)
    blocks = block_count(state, "block1.layer.")
    if not channels or channels % 16 or not classes or "bn1.weight" not in state:
        return None
    used = {key: tensor for key, tensor in state.items() if not key.startswith("sub_block1.")}
    return Recognition(f"{NAME}-{6 * blocks + 4}-{channels // 16}", classes, used)


FAMILY = ModelFamily(form="wideresnet-DEPTH-WIDTH", example="wideresnet-10-1", build=_build, recognise=_recognise)
