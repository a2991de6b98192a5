"""Reductions over some axes: an attribute before version 18 (13 of ReduceSum), an input since."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from exporters.differentiable.operators._sizes import listed
from exporters.differentiable.registry import Node, Operation, operator

_Reduction = Callable[[Tensor, list[int], bool], Tensor]


@operator("ReduceMean", 11, 13, 18)
def reduce_mean(node: Node) -> Operation:
    """The mean."""
    return _over_axes(node, lambda x, axes, keep: x.mean(axes, keepdim=keep))


@operator("ReduceSum", 11, 13)
def reduce_sum(node: Node) -> Operation:
    """The sum."""
    return _over_axes(node, lambda x, axes, keep: x.sum(axes, keepdim=keep, dtype=x.dtype), input_since=13)


@operator("ReduceMax", 11, 12, 13, 18, 20)
def reduce_max(node: Node) -> Operation:
    """The largest value; equal ones share its gradient."""
    return _over_axes(node, lambda x, axes, keep: x.amax(axes, keepdim=keep))


@operator("ReduceMin", 11, 12, 13, 18, 20)
def reduce_min(node: Node) -> Operation:
    """The smallest value; equal ones share its gradient."""
    return _over_axes(node, lambda x, axes, keep: x.amin(axes, keepdim=keep))


@operator("ReduceProd", 11, 13, 18)
def reduce_prod(node: Node) -> Operation:
    """The product."""

    def product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        for axis in sorted((range(x.dim())[axis] for axis in axes), reverse=True):
            x = x.prod(axis, keepdim=keep, dtype=x.dtype)
        return x

    return _over_axes(node, product)


@operator("ReduceL1", 11, 13, 18)
def reduce_l1(node: Node) -> Operation:
    """The sum of absolute values."""
    return _over_axes(node, lambda x, axes, keep: x.abs().sum(axes, keepdim=keep), has_noop=False)


@operator("ReduceL2", 11, 13, 18)
def reduce_l2(node: Node) -> Operation:
    """The root of the sum of squares; at zero its gradient is zero."""
    norm = torch.linalg.vector_norm
    return _over_axes(node, lambda x, axes, keep: norm(x, dim=axes, keepdim=keep), has_noop=False)


@operator("ReduceSumSquare", 11, 13, 18)
def reduce_sum_square(node: Node) -> Operation:
    """The sum of squares."""
    return _over_axes(node, lambda x, axes, keep: x.square().sum(axes, keepdim=keep), has_noop=False)


@operator("ReduceLogSumExp", 11, 13, 18)
def reduce_log_sum_exp(node: Node) -> Operation:
    """The logarithm of the sum of exponentials."""
    return _over_axes(node, lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep), has_noop=False)


def _over_axes(node: Node, reduction: _Reduction, *, input_since: int = 18, has_noop: bool = True) -> Operation:
    """A reduction over the node's axes; over all where none is given, unless the node says that it then does nothing.

    Args:
        node: the node.
        reduction: of a tensor, over distinct axes, at least one, and whether they stay as axes of size one.
        input_since: the version from which the axes are an input.
        has_noop: whether the meaning of "does nothing" is beyond doubt: not where every value is transformed first.
    """
    keep = node.integer("keepdims", 1)
    node.require(keep in (0, 1), "a keepdims that is neither 0 nor 1")
    given, untouched = [], 0
    if node.version < input_since:
        given = node.integers("axes", [])
    else:
        untouched = node.integer("noop_with_empty_axes", 0)
        node.require(untouched == 0 or has_noop, "noop_with_empty_axes")

    def run(x: Tensor, axes: Tensor | None = None) -> Tensor:
        wanted = given if axes is None else listed(axes)
        if not wanted and untouched:
            return x
        wanted = wanted or list(range(x.dim()))
        return reduction(x, wanted, bool(keep)) if wanted else reduction(x[None], [0], False)

    return run
