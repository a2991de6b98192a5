"""Convolutions of a frozen model: the weights take no gradient, and the way back to the input may be a faster one."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input


class FrozenConvolution(nn.Module):
    """A convolution with a bias, whose backward pass goes to the input alone.

    On a CPU the library's own way back through a depthwise convolution is slow: at stride 1 we go back by the forward
    convolution with the kernel turned by half a circle, which is the same sum; at a stride, in float32, because the
    bfloat16 kernel there is a reference one, a hundred times slower.

    Args:
        source: the convolution whose shape is taken; its values are copied by ``refresh``.
        dtype: what it computes in; inputs of another type are converted.
    """

    def __init__(self, source: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        weight = source.weight.detach()
        self.register_buffer("weight", torch.empty_like(weight, dtype=dtype, memory_format=torch.channels_last))
        self.register_buffer("bias", torch.zeros(len(weight), dtype=dtype, device=weight.device))
        self.stride, self.padding, self.dilation, self.groups = (
            source.stride, source.padding, source.dilation, source.groups
        )  # fmt: skip
        self._turned = weight.device.type == "cpu" and _is_plain_depthwise(source)

    weight: Tensor
    bias: Tensor

    def refresh(self, weight: Tensor, bias: Tensor | None) -> None:
        """Take new values ``[O, I / groups, kH, kW]`` and ``[O]``."""
        self.weight.copy_(weight)
        if bias is not None:
            self.bias.copy_(bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, I, H, W] -> [B, O, H', W']``."""
        x = x.to(self.weight.dtype)
        if self._turned and x.requires_grad:
            return cast(Tensor, _Depthwise.apply(x, self.weight, self.bias, self.stride, self.padding))
        return F.conv2d(x, self.weight, self.bias, self.stride, cast(Any, self.padding), self.dilation, self.groups)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution and its gradient with respect to the input."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, int], padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.stride, ctx.padding = x.shape, stride, padding
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        if ctx.stride == (1, 1):
            padding = [k - 1 - p for k, p in zip(weight.shape[2:], ctx.padding, strict=True)]
            turned = weight.flip(2, 3)
            back = F.conv2d(gradient, turned, None, 1, cast(Any, padding), groups=len(weight))
        else:
            back = conv2d_input(  # type: ignore[no-untyped-call]
                ctx.shape, weight.float(), gradient.float(), ctx.stride, ctx.padding, groups=len(weight)
            ).to(gradient.dtype)
        return back, None, None, None, None


def _is_plain_depthwise(convolution: nn.Conv2d) -> bool:
    """One input and one output channel a group, zero padding by numbers smaller than the kernel, no dilation."""
    padding = convolution.padding
    return (
        convolution.groups == convolution.in_channels == convolution.out_channels
        and convolution.groups > 1
        and convolution.dilation == (1, 1)
        and not isinstance(padding, str)
        and all(p < k for p, k in zip(padding, convolution.kernel_size, strict=True))
    )
