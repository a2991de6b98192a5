"""The few layers that several families share."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from compressor.core.errors import UsageError
from compressor.core.types import ModelSpec


def activation(spec: ModelSpec) -> nn.Module:
    """The spec's activation as a module without parameters: it leaves no trace in a state dict."""
    return nn.SiLU() if spec.activation == "silu" else nn.ReLU()


def require_relu(spec: ModelSpec) -> None:
    """Refuse an activation that the family has never been published with.

    Raises:
        UsageError: the spec asks for anything but ReLU.
    """
    if spec.activation != "relu":
        raise UsageError(
            f"the model {spec.name!r} has no {spec.activation} form.",
            "Leave the activation out, or choose a dm- family, which knows relu and silu.",
        )


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3 x 3 convolution without bias, padded by 1 on every side."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


def pad_same(x: Tensor, stride: int) -> Tensor:
    """Zero padding for a 3 x 3 convolution as TensorFlow's ``SAME`` places it on an even side.

    With stride 1 that is one pixel on every side; with stride 2 one on the right and one at the bottom only, where
    PyTorch's ``padding=1`` would shift the picture by a pixel.

    Args:
        x: ``[B, C, H, W]``.
        stride: 1 or 2, the stride of the convolution that follows.
    """
    return F.pad(x, (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1))


def pooled(x: Tensor) -> Tensor:
    """The mean over height and width, ``[B, C, H, W] -> [B, C]``: the ports' fixed average pooling, at any size."""
    return x.mean((2, 3))
