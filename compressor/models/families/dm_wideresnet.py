"""WideResNet as DeepMind's robustness release writes it: SiLU or ReLU, and TensorFlow's padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from compressor.core.contracts import ModelFamily, Recognition
from compressor.core.types import ModelSpec
from compressor.models.families._layers import activation, conv3x3, pad_same, pooled
from compressor.models.families._names import block_count, depth_and_width, rows

NAME = "dm-wideresnet"


class Block(nn.Module):
    """A pre-activation block; where the channels change, the shortcut starts after the first activation."""

    def __init__(self, in_channels: int, channels: int, stride: int, spec: ModelSpec) -> None:
        super().__init__()
        self.stride = stride
        self.batchnorm_0 = nn.BatchNorm2d(in_channels)
        self.relu_0 = activation(spec)
        self.conv_0 = nn.Conv2d(in_channels, channels, kernel_size=3, stride=stride, padding=0, bias=False)
        self.batchnorm_1 = nn.BatchNorm2d(channels)
        self.relu_1 = activation(spec)
        self.conv_1 = conv3x3(channels, channels)
        self.shortcut: nn.Conv2d | None = None
        if in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, kernel_size=1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, channels, H / stride, W / stride]``."""
        activated = self.relu_0(self.batchnorm_0(x))
        out = self.conv_0(pad_same(activated, self.stride))
        out = self.conv_1(self.relu_1(self.batchnorm_1(out)))
        return cast(Tensor, out + (x if self.shortcut is None else self.shortcut(activated)))


class BlockGroup(nn.Module):
    """One stage: ``blocks`` blocks, the first at ``stride``."""

    def __init__(self, blocks: int, in_channels: int, channels: int, stride: int, spec: ModelSpec) -> None:
        super().__init__()
        rest = (Block(channels, channels, 1, spec) for _ in range(blocks - 1))
        self.block = nn.Sequential(Block(in_channels, channels, stride, spec), *rest)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, channels, H / stride, W / stride]``."""
        return cast(Tensor, self.block(x))


class DeepMindWideResNet(nn.Module):
    """Three stages of ``(depth - 4) / 6`` blocks with 16, 32 and 64 times ``width`` channels.

    Source: Gowal et al. 2020, "Uncovering the Limits of Adversarial Training against Norm-Bounded Adversarial
    Examples"; the names are those of its PyTorch release, which Rebuffi 2021, Wang 2023 and Bartoldson 2024 share.
    The release normalises inside its forward; here the classifier around the network does, with the same numbers.

    Args:
        depth: 6n + 4.
        width: the widening factor.
        spec: gives the activation and how many logits.
    """

    def __init__(self, depth: int, width: int, spec: ModelSpec) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.init_conv = conv3x3(3, 16)
        self.layer = nn.Sequential(
            BlockGroup(blocks, 16, 16 * width, 1, spec),
            BlockGroup(blocks, 16 * width, 32 * width, 2, spec),
            BlockGroup(blocks, 32 * width, 64 * width, 2, spec),
        )
        self.batchnorm = nn.BatchNorm2d(64 * width)
        self.relu = activation(spec)
        self.logits = nn.Linear(64 * width, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[B, 3, H, W]`` to logits ``[B, K]``."""
        out = self.relu(self.batchnorm(self.layer(self.init_conv(x))))
        return cast(Tensor, self.logits(pooled(out)))


def _build(spec: ModelSpec) -> nn.Module:
    depth, width = depth_and_width(spec.name, NAME)
    return DeepMindWideResNet(depth, width, spec)


def _recognise(state: Mapping[str, Tensor]) -> Recognition | None:
    channels, classes = rows(state, "layer.0.block.0.conv_0.weight", 4), rows(state, "logits.weight", 2)
    blocks = block_count(state, "layer.0.block.")
    if not channels or channels % 16 or not classes or "init_conv.weight" not in state:
        return None
    name = f"{NAME}-{6 * blocks + 4}-{channels // 16}"
    return Recognition(name, classes, state, activations=("silu", "relu"), normalizes=True)


FAMILY = ModelFamily(form="dm-wideresnet-DEPTH-WIDTH", example="dm-wideresnet-10-1", build=_build, recognise=_recognise)
