"""Operators that move values and compute none: Reshape, Pad, Transpose, Concat, Shape and their kin."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from exporters.differentiable.operators._sizes import bounded, listed
from exporters.differentiable.operators._types import alike
from exporters.differentiable.registry import Node, Operation, operator

_SOURCES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "reflect": lambda places, size: size - 1 - (size - 1 - places.abs()).abs(),
    "edge": lambda places, size: places.clamp(0, size - 1),
    "wrap": lambda places, size: places.remainder(size),
}
"""Which old cell of an axis each new one repeats; the new ones are counted from where the old begin."""


@operator("Identity", 1, 13, 14, 16, 19, 21, 23, 24, 25)
def identity(node: Node) -> Operation:
    """The value itself."""
    return lambda x: x


@operator("Reshape", 5, 13, 14, 19, 21, 23, 24, 25)
def reshape(node: Node) -> Operation:
    """Another shape; -1 is inferred, and 0 copies the input's size unless ``allowzero``."""
    allow_zero = node.integer("allowzero", 0) if node.version >= 14 else 0

    def run(x: Tensor, shape: Tensor) -> Tensor:
        sizes = listed(shape)
        if not allow_zero:
            sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
        return x.reshape(sizes)

    return run


@operator("Flatten", 9, 11, 13, 21, 23, 24, 25)
def flatten(node: Node) -> Operation:
    """A matrix: the axes before ``axis`` become rows, the others columns."""
    axis = node.integer("axis", 1)

    def run(x: Tensor) -> Tensor:
        if not -x.dim() <= axis <= x.dim():
            raise IndexError("the axis is outside the tensor")
        split = axis + x.dim() if axis < 0 else axis
        return x.reshape(math.prod(x.shape[:split]), math.prod(x.shape[split:]))

    return run


@operator("Pad", 11, 13, 18, 19, 21, 23, 24, 25)
def pad(node: Node) -> Operation:
    """Cells added around, or cut off where negative: a constant, a reflection, the edge, or the other side."""
    mode = node.text("mode", "constant")
    node.require(mode == "constant" or mode in _SOURCES, f"mode {mode[:30]!r}")
    node.require(mode != "wrap" or node.version >= 19, "mode 'wrap'")

    def run(x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
        amounts = listed(pads)
        wanted = [range(x.dim())[axis] for axis in listed(axes)] if axes is not None else list(range(x.dim()))
        if len(amounts) != 2 * len(wanted) or len(set(wanted)) != len(wanted):
            raise ValueError("the pads do not fit the axes")
        before, after = [0] * x.dim(), [0] * x.dim()
        for position, axis in enumerate(wanted):
            before[axis], after[axis] = amounts[position], amounts[position + len(wanted)]
        sizes = bounded(size + b + a for size, b, a in zip(x.shape, before, after, strict=True))
        if mode == "constant":
            pairs = [amount for axis in reversed(range(x.dim())) for amount in (before[axis], after[axis])]
            return F.pad(x, pairs, value=0.0 if value is None else value.item())
        for axis in wanted:
            if before[axis] or after[axis]:
                places = torch.arange(sizes[axis], device=x.device) - before[axis]
                x = x.index_select(axis, _SOURCES[mode](places, x.shape[axis]))
        return x

    return run


@operator("Transpose", 1, 13, 21, 23, 24, 25)
def transpose(node: Node) -> Operation:
    """The axes in another order; reversed where none is given."""
    order = node.integers("perm", [])
    return lambda x: x.permute(order or tuple(reversed(range(x.dim()))))


@operator("Concat", 4, 11, 13)
def concat(node: Node) -> Operation:
    """Tensors joined along one axis."""
    axis = node.integer("axis")
    return lambda *parts: torch.cat(alike(*parts), axis)


@operator("Shape", 1, 13, 15, 19, 21, 23, 24, 25, blocks_gradient=True)
def shape_(node: Node) -> Operation:
    """The sizes of a tensor, or a slice of them."""
    start = node.integer("start", 0) if node.version >= 15 else 0
    end = node.integer("end", 1 << 31) if node.version >= 15 else 1 << 31
    return lambda x: torch.tensor(list(x.shape)[start:end], dtype=torch.int64, device=x.device)


@operator("Size", 1, 13, 19, 21, 23, 24, 25, blocks_gradient=True)
def size_(node: Node) -> Operation:
    """How many numbers a tensor has."""
    return lambda x: torch.tensor(x.numel(), dtype=torch.int64, device=x.device)


@operator("Dropout", 10, 12, 13, 22)
def dropout(node: Node) -> Operation:
    """The value itself: only in training is anything dropped."""
    if node.version < 12:
        node.real("ratio", 0.5)  # how much is dropped in training
    else:
        node.integer("seed", 0)  # what is dropped in training

    def run(x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None) -> Tensor:
        if training is not None and bool(training):
            raise ValueError("in training mode the values would be random")
        return x

    return run


@operator("Squeeze", 11, 13, 21, 23, 24, 25)
def squeeze(node: Node) -> Operation:
    """The given axes of size one removed; all such axes where none is given."""
    given = node.integers("axes", []) if node.version < 13 else []

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        wanted = given if axes is None else listed(axes)
        if axes is None and not given:
            return x.squeeze()
        gone = {range(x.dim())[axis] for axis in wanted}
        if any(x.shape[axis] != 1 for axis in gone):
            raise ValueError("only axes of size one can be removed")
        return x.reshape([size for axis, size in enumerate(x.shape) if axis not in gone])

    return run


@operator("Unsqueeze", 11, 13, 21, 23, 24, 25)
def unsqueeze(node: Node) -> Operation:
    """Axes of size one put in, counted in the result."""
    given = node.integers("axes") if node.version < 13 else []

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        positions = given if axes is None else listed(axes)
        rank = x.dim() + len(positions)
        for axis in sorted(range(rank)[axis] for axis in positions):
            x = x.unsqueeze(axis)
        return x

    return run
