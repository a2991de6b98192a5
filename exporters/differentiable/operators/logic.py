"""Comparisons, truth values, and the choice between two values: exact, and no gradient passes through a condition."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from exporters.differentiable.operators._straight_through import past_constants
from exporters.differentiable.operators._types import alike
from exporters.differentiable.registry import Node, Operation, built_operator, function_operator, operator


@operator("Where", 9, 16, saturates=True)
def where(node: Node) -> Operation:
    """``a`` where the condition holds, else ``b``; where only one is a constant, it saturates as Clip does."""

    def run(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
        if condition.dtype != torch.bool:
            raise TypeError("the condition is no truth value")
        a, b = alike(a, b)
        value = torch.where(condition, a, b)
        return past_constants(value, a, b) if node.straight_through else value

    return run


def _compared(function: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    return lambda a, b: function(*alike(a, b))


def _position(node: Node, function: Callable[..., Tensor]) -> Operation:
    axis, keep = node.integer("axis", 0), node.integer("keepdims", 1)
    node.require(keep in (0, 1), "a keepdims that is neither 0 nor 1")
    node.require(node.version < 12 or node.integer("select_last_index", 0) == 0, "select_last_index")
    return lambda x: function(x, axis, keepdim=bool(keep))


def _position_operator(name: str, summary: str, function: Callable[..., Tensor]) -> None:
    built_operator(name, summary, lambda node: _position(node, function), 11, 12, 13, blocks_gradient=True)


_position_operator("ArgMax", "The first position of the largest value along one axis.", torch.argmax)
_position_operator("ArgMin", "The first position of the smallest value along one axis.", torch.argmin)
function_operator("Equal", "``a = b``.", _compared(torch.eq), 11, 13, 19, blocks_gradient=True)
function_operator("Greater", "``a > b``.", _compared(torch.gt), 9, 13, blocks_gradient=True)
function_operator("GreaterOrEqual", "``a >= b``.", _compared(torch.ge), 12, 16, blocks_gradient=True)
function_operator("Less", "``a < b``.", _compared(torch.lt), 9, 13, blocks_gradient=True)
function_operator("LessOrEqual", "``a <= b``.", _compared(torch.le), 12, 16, blocks_gradient=True)
function_operator("And", "Both.", torch.logical_and, 7, blocks_gradient=True)
function_operator("Or", "At least one.", torch.logical_or, 7, blocks_gradient=True)
function_operator("Xor", "Exactly one.", torch.logical_xor, 7, blocks_gradient=True)
function_operator("Not", "The other one.", torch.logical_not, 1, blocks_gradient=True)
function_operator("IsNaN", "Whether x is not a number.", torch.isnan, 9, 13, 20, blocks_gradient=True)
