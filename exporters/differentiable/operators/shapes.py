"""Operators that move values and compute none: Reshape, Flatten, Pad, Transpose, Concat and their kin."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from exporters.differentiable.registry import Node, Operation, operator

_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}


@operator("Identity", 1, 13, 14, 16, 19, 21)
def identity(node: Node) -> Operation:
    """The value itself."""
    return lambda x: x


@operator("Reshape", 5, 13, 14, 19, 21)
def reshape(node: Node) -> Operation:
    """Another shape; -1 is inferred, and 0 copies the input's size unless ``allowzero``."""
    allow_zero = node.integer("allowzero", 0) if node.version >= 14 else 0

    def run(x: Tensor, shape: Tensor) -> Tensor:
        sizes = [int(size) for size in shape.tolist()]
        if not allow_zero:
            sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
        return x.reshape(sizes)

    return run


@operator("Flatten", 9, 11, 13, 21)
def flatten(node: Node) -> Operation:
    """A matrix: the axes before ``axis`` become rows, the others columns."""
    axis = node.integer("axis", 1)

    def run(x: Tensor) -> Tensor:
        if not -x.dim() <= axis <= x.dim():
            raise IndexError("the axis is outside the tensor")
        split = axis + x.dim() if axis < 0 else axis
        return x.reshape(math.prod(x.shape[:split]), math.prod(x.shape[split:]))

    return run


@operator("Pad", 11, 13, 18, 19, 21)
def pad(node: Node) -> Operation:
    """Cells added around, or cut off where negative: a constant, a reflection, or the edge repeated."""
    mode = node.text("mode", "constant")
    node.require(mode in _PAD_MODES, f"mode {mode[:30]!r}")

    def run(x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None) -> Tensor:
        amounts = [int(amount) for amount in pads.tolist()]
        wanted = [int(axis) % x.dim() for axis in axes.tolist()] if axes is not None else list(range(x.dim()))
        if len(amounts) != 2 * len(wanted) or len(set(wanted)) != len(wanted):
            raise ValueError("the pads do not fit the axes")
        before, after = [0] * x.dim(), [0] * x.dim()
        for position, axis in enumerate(wanted):
            before[axis], after[axis] = amounts[position], amounts[position + len(wanted)]
        pairs = [amount for axis in reversed(range(x.dim())) for amount in (before[axis], after[axis])]
        if mode == "constant":
            return F.pad(x, pairs, value=0.0 if value is None else value.item())
        if x.dim() != 4 or any(pairs[4:]) or min(pairs) < 0:
            raise ValueError("reflection and edges are padded on the last two axes of [B, C, H, W] only")
        return F.pad(x, pairs[:4], mode=_PAD_MODES[mode])

    return run


@operator("Transpose", 1, 13, 21)
def transpose(node: Node) -> Operation:
    """The axes in another order; reversed where none is given."""
    order = node.integers("perm", [])
    return lambda x: x.permute(order or tuple(reversed(range(x.dim()))))


@operator("Concat", 4, 11, 13)
def concat(node: Node) -> Operation:
    """Tensors joined along one axis."""
    axis = node.integer("axis")

    def run(*parts: Tensor) -> Tensor:
        if len({part.dtype for part in parts}) != 1:
            raise TypeError("the parts are of several types")
        return torch.cat(parts, axis)

    return run


@operator("Split", 13, 18, several_outputs=True)
def split(node: Node) -> Operation:
    """Consecutive parts along one axis: of the given sizes, else equal ones, of which the last may be shorter."""
    axis, count = node.integer("axis", 0), node.outputs
    if node.version >= 18 and node.has("num_outputs"):
        node.require(node.integer("num_outputs") == count, "another number of outputs than num_outputs")

    def run(x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        along = range(x.dim())[axis]
        each = -(-x.shape[along] // count)
        wanted = each if sizes is None else [int(size) for size in sizes.tolist()]
        parts = torch.split(x, wanted, along)
        if len(parts) != count:
            raise ValueError("the parts are not as many as the outputs")
        return parts

    return run


@operator("Shape", 1, 13, 15, 19, 21)
def shape_(node: Node) -> Operation:
    """The sizes of a tensor, or a slice of them."""
    start = node.integer("start", 0) if node.version >= 15 else 0
    end = node.integer("end", 1 << 31) if node.version >= 15 else 1 << 31
    return lambda x: torch.tensor(list(x.shape)[start:end], dtype=torch.int64, device=x.device)


@operator("Gather", 11, 13)
def gather(node: Node) -> Operation:
    """The entries of one axis at the given positions; negative positions count from the end."""
    axis = node.integer("axis", 0)

    def run(x: Tensor, index: Tensor) -> Tensor:
        along = range(x.dim())[axis]
        flat = index.reshape(-1).to(x.device)
        flat = torch.where(flat < 0, flat + x.shape[along], flat)
        chosen = x.index_select(along, flat)
        return chosen.reshape(*x.shape[:along], *index.shape, *x.shape[along + 1 :])

    return run


@operator("Squeeze", 13, 21)
def squeeze(node: Node) -> Operation:
    """The given axes of size one removed; all such axes where none is given."""

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        if axes is None:
            return x.squeeze()
        gone = {range(x.dim())[int(axis)] for axis in axes.tolist()}
        if any(x.shape[axis] != 1 for axis in gone):
            raise ValueError("only axes of size one can be removed")
        return x.reshape([size for axis, size in enumerate(x.shape) if axis not in gone])

    return run


@operator("Unsqueeze", 13, 21)
def unsqueeze(node: Node) -> Operation:
    """Axes of size one put in, counted in the result."""

    def run(x: Tensor, axes: Tensor) -> Tensor:
        positions = [int(axis) for axis in axes.tolist()]
        rank = x.dim() + len(positions)
        for axis in sorted(range(rank)[axis] for axis in positions):
            x = x.unsqueeze(axis)
        return x

    return run
