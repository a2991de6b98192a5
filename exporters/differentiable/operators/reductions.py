"""Reductions over some axes: an attribute before version 18 (13 of ReduceSum), an input since."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from exporters.differentiable.operators._sizes import listed
from exporters.differentiable.registry import Node, Operation, built_operator

_Reduction = Callable[[Tensor, list[int], bool], Tensor]


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


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((range(x.dim())[axis] for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _reduction_operator(name: str, summary: str, reduction: _Reduction, *versions: int, **options: Any) -> None:
    built_operator(name, summary, lambda node: _over_axes(node, reduction, **options), *versions)


def _transformed(name: str, summary: str, reduction: _Reduction) -> None:
    """Register a reduction that transforms every value first."""
    _reduction_operator(name, summary, reduction, 11, 13, 18, has_noop=False)


_reduction_operator("ReduceMean", "The mean.", lambda x, axes, keep: x.mean(axes, keepdim=keep), 11, 13, 18)
_reduction_operator(
    "ReduceSum", "The sum.", lambda x, axes, keep: x.sum(axes, keepdim=keep, dtype=x.dtype), 11, 13, input_since=13
)
_reduction_operator(
    "ReduceMax",
    "The largest value; equal ones share its gradient.",
    lambda x, axes, keep: x.amax(axes, keepdim=keep),
    *(11, 12, 13, 18, 20),
)
_reduction_operator(
    "ReduceMin",
    "The smallest value; equal ones share its gradient.",
    lambda x, axes, keep: x.amin(axes, keepdim=keep),
    *(11, 12, 13, 18, 20),
)
_reduction_operator("ReduceProd", "The product.", _product, 11, 13, 18)
_transformed("ReduceL1", "The sum of absolute values.", lambda x, axes, keep: x.abs().sum(axes, keepdim=keep))
_transformed(
    "ReduceL2",
    "The root of the sum of squares; at zero its gradient is zero.",
    lambda x, axes, keep: torch.linalg.vector_norm(x, dim=axes, keepdim=keep),
)
_transformed("ReduceSumSquare", "The sum of squares.", lambda x, axes, keep: x.square().sum(axes, keepdim=keep))
_transformed(
    "ReduceLogSumExp",
    "The logarithm of the sum of exponentials.",
    lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep),
)
