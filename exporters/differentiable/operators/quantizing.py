"""QuantizeLinear and DequantizeLinear: eight-bit files, their values exact and their gradients straight-through.

An integer tensor cannot carry a gradient in torch, so a quantised value stays in the float type of its input, as the
integer that it is. The rounding passes the gradient as if it were the identity. The saturation at the ends of the
eight bits is a Clip: zero beyond them, or passed too where straight-through is asked. Where the graph is wanted without
its rounding, the saturation stays: a ReLU is often nothing else.

Source: ONNX operator definitions; Bengio et al. 2013 for the gradient.
"""

from __future__ import annotations

import torch
from onnx import TensorProto
from torch import Tensor

from exporters.differentiable.operators._straight_through import straight_through
from exporters.differentiable.registry import Node, Operation, operator

_DEFAULT_RANGE = torch.uint8  # where neither a zero point nor an attribute names the type
_RANGES: dict[int, torch.dtype] = {0: _DEFAULT_RANGE, TensorProto.UINT8: torch.uint8, TensorProto.INT8: torch.int8}


@operator("QuantizeLinear", 10, 13, 19, 21, 23, 24, 25, saturates=True)
def quantize_linear(node: Node) -> Operation:
    """``clip(round(x / scale) + zero, low, high)``, halves to even; per tensor, or per index of one axis."""
    axis, default = _axis(node), _DEFAULT_RANGE
    if node.version >= 19:
        node.integer("saturate", 1)  # says something about 8-bit floats only, and those are refused
    if node.version >= 21:
        named = node.integer("output_dtype", 0)
        node.require(named in _RANGES, f"an output of type {named}")
        default = _RANGES[named]
    if node.version >= 23:
        node.require(node.integer("precision", 0) in (0, TensorProto.FLOAT), "another precision than float32")

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        limits = torch.iinfo(_eight_bits(default if zero is None else zero.dtype))
        ratio = x / _along(scale, axis, x)
        offset = torch.zeros_like(scale) if zero is None else zero.to(scale.dtype)
        shifted = (straight_through(ratio, torch.round(ratio)) if node.quantises else ratio) + _along(offset, axis, x)
        clipped = torch.clamp(shifted, limits.min, limits.max)
        return straight_through(shifted, clipped) if node.straight_through else clipped

    return run


@operator("DequantizeLinear", 10, 13, 19, 21, 23, 24, 25)
def dequantize_linear(node: Node) -> Operation:
    """``(x - zero) * scale``; per tensor, or per index of one axis."""
    axis = _axis(node)
    if node.version >= 23:
        node.require(node.integer("output_dtype", 0) in (0, TensorProto.FLOAT), "another output than float32")

    def run(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        if not x.is_floating_point() and x.dtype not in (torch.uint8, torch.int8, torch.int32):
            raise TypeError("values of this type are not quantised ones")
        values = x.to(scale.dtype)
        if zero is not None:
            values = values - _along(zero.to(scale.dtype), axis, x)
        return values * _along(scale, axis, x)

    return run


def _axis(node: Node) -> int:
    """The axis of per-axis scales, blocks of it being refused."""
    if node.version >= 21:
        node.require(node.integer("block_size", 0) == 0, "scales by blocks")
    return node.integer("axis", 1) if node.version >= 13 else 1


def _along(values: Tensor, axis: int, x: Tensor) -> Tensor:
    """A scale or zero point, one number or one for each index of ``axis``, in a shape that broadcasts with ``x``."""
    if values.numel() == 1:
        return values.reshape(())
    if values.dim() != 1 or values.shape[0] != x.shape[axis]:
        raise ValueError("there is not one scale for each index of the axis")
    shape = [1] * x.dim()
    shape[axis] = -1
    return values.reshape(shape)


def _eight_bits(dtype: torch.dtype) -> torch.dtype:
    if dtype not in (torch.uint8, torch.int8):
        raise TypeError("only eight-bit zero points are implemented")
    return dtype
