"""Values whose size or numbers the graph itself chooses: ConstantOfShape, Range, Expand, Tile."""

from __future__ import annotations

import math

import torch
from onnx import TensorProto, helper
from torch import Tensor

from exporters.differentiable.constants import to_tensor
from exporters.differentiable.operators._sizes import bounded, listed
from exporters.differentiable.registry import Node, Operation, operator


@operator("ConstantOfShape", 9, 20, 21, 23, 24, 25, blocks_gradient=True)
def constant_of_shape(node: Node) -> Operation:
    """One number, zero unless it is given, in every cell of a shape."""
    value = to_tensor("value", node.tensor("value", helper.make_tensor("", TensorProto.FLOAT, [1], [0.0])))
    node.require(value.numel() == 1, "a value that is not one number")
    return lambda shape: value.reshape(()).to(shape.device).expand(bounded(listed(shape)))


@operator("Range", 11, blocks_gradient=True)
def range_(node: Node) -> Operation:
    """``start, start + step, ...`` up to, and without, the limit."""

    def run(start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
        first, end, each = start.item(), limit.item(), step.item()
        (count,) = bounded([max(0, math.ceil((end - first) / each))])
        return start + torch.arange(count, dtype=start.dtype, device=start.device) * step

    return run


@operator("Expand", 8, 13)
def expand(node: Node) -> Operation:
    """The value repeated along its axes of size one, until it broadcasts with a shape."""

    def run(x: Tensor, shape: Tensor) -> Tensor:
        wanted = listed(shape)
        rank = max(x.dim(), len(wanted))
        old, new = ([1] * (rank - len(sizes)) + list(sizes) for sizes in (x.shape, wanted))
        return x.expand(bounded(a if b == 1 else b for a, b in zip(old, new, strict=True)))

    return run


@operator("Tile", 6, 13)
def tile(node: Node) -> Operation:
    """The value repeated along each axis as often as is asked."""

    def run(x: Tensor, repeats: Tensor) -> Tensor:
        times = listed(repeats)
        bounded(size * count for size, count in zip(x.shape, times, strict=True))
        return x.repeat(times)

    return run
