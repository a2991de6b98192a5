"""Pre-activation ResNet-18 as DeepMind's robustness release writes it: SiLU or ReLU, and TensorFlow's padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from compressor.core.contracts import ModelFamily, Recognition
from compressor.core.types import ModelSpec
from compressor.models.families._layers import activation, conv3x3, pad_same, pooled
from compressor.models.families._names import block_count, rows, scaled_channels, width_multiplier, with_width

NAME = "dm-resnet18"


class PreActBlock(nn.Module):
    """``conv_2d_2(act(bn(conv_2d_1(act(bn(x)))))) + shortcut(x)``; a shortcut that projects is a 3 x 3 convolution."""

    def __init__(self, in_channels: int, channels: int, stride: int, spec: ModelSpec) -> None:
        super().__init__()
        self.stride = stride
        self.batchnorm_0 = nn.BatchNorm2d(in_channels)
        self.relu_0 = activation(spec)
        self.conv_2d_1 = nn.Conv2d(in_channels, channels, kernel_size=3, stride=stride, padding=0, bias=False)
        self.batchnorm_1 = nn.BatchNorm2d(channels)
        self.relu_1 = activation(spec)
        self.conv_2d_2 = conv3x3(channels, channels)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, kernel_size=3, stride=stride, padding=0, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, channels, H / stride, W / stride]``."""
        out = self.conv_2d_1(pad_same(self.relu_0(self.batchnorm_0(x)), self.stride))
        out = self.conv_2d_2(self.relu_1(self.batchnorm_1(out)))
        return cast(Tensor, out + (x if self.shortcut is None else self.shortcut(pad_same(x, self.stride))))


class DeepMindResNet18(nn.Module):
    """Four stages of two pre-activation blocks, at strides 1, 2, 2, 2, on a 3 x 3 stem.

    Source: Rebuffi et al. 2021, "Fixing Data Augmentation to Improve Adversarial Robustness"; the names are those of
    its PyTorch release. The release normalises inside its forward; here the classifier around the network does.

    Args:
        channels: of the first stage; each later stage doubles them.
        spec: gives the activation and how many logits.
    """

    def __init__(self, channels: int, spec: ModelSpec) -> None:
        super().__init__()
        self.conv_2d = conv3x3(3, channels)
        self.layer_0 = _stage(channels, channels, 1, spec)
        self.layer_1 = _stage(channels, 2 * channels, 2, spec)
        self.layer_2 = _stage(2 * channels, 4 * channels, 2, spec)
        self.layer_3 = _stage(4 * channels, 8 * channels, 2, spec)
        self.batchnorm = nn.BatchNorm2d(8 * channels)
        self.relu = activation(spec)
        self.logits = nn.Linear(8 * channels, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images ``[B, 3, H, W]`` to logits ``[B, K]``."""
        out = self.layer_3(self.layer_2(self.layer_1(self.layer_0(self.conv_2d(x)))))
        return cast(Tensor, self.logits(pooled(self.relu(self.batchnorm(out)))))


def _stage(in_channels: int, channels: int, stride: int, spec: ModelSpec) -> nn.Sequential:
    return nn.Sequential(PreActBlock(in_channels, channels, stride, spec), PreActBlock(channels, channels, 1, spec))


def _build(spec: ModelSpec) -> nn.Module:
    return DeepMindResNet18(scaled_channels(64, width_multiplier(spec.name, NAME)), spec)


def _recognise(state: Mapping[str, Tensor]) -> Recognition | None:
    channels, classes = rows(state, "conv_2d.weight", 4), rows(state, "logits.weight", 2)
    blocks = [block_count(state, f"layer_{stage}.") for stage in (0, 1, 2, 3)]
    if not channels or channels % 8 or not classes or blocks != [2, 2, 2, 2]:
        return None
    return Recognition(with_width(NAME, channels / 64), classes, state, activations=("silu", "relu"), normalizes=True)


FAMILY = ModelFamily(form="dm-resnet18[-WIDTH]", example="dm-resnet18-0.125", build=_build, recognise=_recognise)
