"""Operators that take parts of a value by position, or put parts into it."""

from __future__ import annotations

import torch
from torch import Tensor

from exporters.differentiable.operators._sizes import listed
from exporters.differentiable.operators._types import alike
from exporters.differentiable.registry import Node, Operation, operator


@operator("Split", 11, 13, 18, several_outputs=True)
def split(node: Node) -> Operation:
    """Consecutive parts along one axis: of the given sizes, else equal ones, of which the last may be shorter."""
    axis, count = node.integer("axis", 0), node.outputs
    given = node.integers("split", []) if node.version < 13 else []
    node.require(len(given) in (0, count), "another number of sizes than of outputs")
    if node.version >= 18 and node.has("num_outputs"):
        node.require(node.integer("num_outputs") == count, "another number of outputs than num_outputs")

    def run(x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
        along = range(x.dim())[axis]
        if sizes is not None and sizes.numel() != count:
            raise ValueError("the parts are not as many as the outputs")
        wanted = given if sizes is None else [int(size) for size in sizes.tolist()]
        parts = torch.split(x, wanted or -(-x.shape[along] // count), along)
        if len(parts) != count:
            raise ValueError("the parts are not as many as the outputs")
        return parts

    return run


@operator("Slice", 10, 11, 13)
def slice_(node: Node) -> Operation:
    """Every so manyth entry between two positions of each given axis; backwards where the step is negative."""

    def run(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
        first, last = listed(starts), listed(ends)
        wanted = list(range(len(first))) if axes is None else [range(x.dim())[axis] for axis in listed(axes)]
        strides = [1] * len(first) if steps is None else listed(steps)
        if len(set(wanted)) != len(wanted):
            raise ValueError("an axis is given twice")
        for axis, start, end, step in zip(wanted, first, last, strides, strict=True):
            kept = range(*slice(start, end, step).indices(x.shape[axis]))
            if step > 0:
                x = x[(slice(None),) * axis + (slice(kept.start, kept.stop, step),)]
            else:  # which torch's own slices do not know
                x = x.index_select(axis, kept.start + step * torch.arange(len(kept), device=x.device))
        return x

    return run


@operator("Gather", 11, 13)
def gather(node: Node) -> Operation:
    """The entries of one axis at the given positions; negative positions count from the end."""
    axis = node.integer("axis", 0)

    def run(x: Tensor, index: Tensor) -> Tensor:
        along = range(x.dim())[axis]
        chosen = x.index_select(along, _positions(index, x.shape[along]).reshape(-1))
        return chosen.reshape([*x.shape[:along], *index.shape, *x.shape[along + 1 :]])

    return run


@operator("GatherElements", 11, 13)
def gather_elements(node: Node) -> Operation:
    """For each cell of the index, the entry of one axis at that position."""
    axis = node.integer("axis", 0)
    return lambda x, index: torch.gather(x, axis, _positions(index, x.shape[axis]))


@operator("GatherND", 12, 13)
def gather_nd(node: Node) -> Operation:
    """The entries at positions on several axes, those behind the first ``batch_dims`` axes, which both share."""
    shared = node.integer("batch_dims", 0)
    node.require(shared >= 0, "a negative batch_dims")

    def run(x: Tensor, index: Tensor) -> Tensor:
        return x[(*_shared_positions(index, shared), *_coordinates(x, index, shared))]

    return run


@operator("ScatterND", 11, 13, 16, 18)
def scatter_nd(node: Node) -> Operation:
    """The value with other entries at positions on its first axes."""
    reduction = node.text("reduction", "none") if node.version >= 16 else "none"
    node.require(reduction == "none", f"reduction {reduction[:30]!r}")

    def run(x: Tensor, index: Tensor, updates: Tensor) -> Tensor:
        x, updates = alike(x, updates)
        return x.index_put(_coordinates(x, index, 0), updates)

    return run


@operator("Trilu", 14)
def trilu(node: Node) -> Operation:
    """The upper or lower triangle of each matrix, from one of its diagonals on, and zeros."""
    upper = node.integer("upper", 1)
    node.require(upper in (0, 1), "an upper that is neither 0 nor 1")
    triangle = torch.triu if upper else torch.tril
    return lambda x, diagonal=None: triangle(x, 0 if diagonal is None else int(diagonal.item()))


def _positions(index: Tensor, size: int) -> Tensor:
    """Positions in ``[0, size)``; negative ones count from the end. Those beyond are left for torch to refuse."""
    whole = index.long()
    return torch.where(whole < 0, whole + size, whole)


def _coordinates(x: Tensor, index: Tensor, shared: int) -> tuple[Tensor, ...]:
    """The last axis of an index as one tensor of positions for each axis of x that it speaks of."""
    axes = index.shape[-1]
    if axes > x.dim() - shared:
        raise IndexError("the positions have more axes than the value")
    return tuple(_positions(index[..., axis], x.shape[shared + axis]) for axis in range(axes))


def _shared_positions(index: Tensor, shared: int) -> list[Tensor]:
    """The own position of each cell of an index along the axes that it shares with the value."""
    if shared >= index.dim():
        raise IndexError("the index has fewer axes than it shares")
    rank = index.dim() - 1
    positions = []
    for axis in range(shared):
        shape = [1] * rank
        shape[axis] = -1
        positions.append(torch.arange(index.shape[axis], device=index.device).reshape(shape))
    return positions
