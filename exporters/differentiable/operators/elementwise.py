"""Arithmetic of two values or more, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from exporters.differentiable.operators._straight_through import past_constants, straight_through
from exporters.differentiable.operators._types import alike
from exporters.differentiable.registry import Node, Operation, built_operator, function_operator, operator


@operator("Div", 7, 13, 14)
def div(node: Node) -> Operation:
    """``a / b``; integers are divided towards zero."""

    def run(a: Tensor, b: Tensor) -> Tensor:
        whole = not (a.is_floating_point() and b.is_floating_point())
        a, b = alike(a, b)
        if not whole:
            return a / b
        quotient = torch.div(a, b, rounding_mode="trunc")
        return straight_through(a / b, quotient) if a.is_floating_point() else quotient

    return run


@operator("Mod", 10, 13)
def mod(node: Node) -> Operation:
    """What is left of ``a / b``: with the sign of b, or with ``fmod`` that of a."""
    as_in_c = node.integer("fmod", 0)
    node.require(as_in_c in (0, 1), "an fmod that is neither 0 nor 1")
    return _all(torch.fmod if as_in_c else torch.remainder)


@operator("Mean", 8, 13)
def mean(node: Node) -> Operation:
    """The mean of all operands."""
    total = _all(torch.add)
    return lambda *operands: torch.div(total(*operands), len(operands))


def _extreme(node: Node, function: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    largest = _all(function)

    def run(*operands: Tensor) -> Tensor:
        value = largest(*operands)
        return past_constants(value, *operands) if node.straight_through else value

    return run


def _all(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda *operands: reduce(function, alike(*operands))


function_operator("Add", "``a + b``.", _all(torch.add), 7, 13, 14)
function_operator("Sub", "``a - b``.", _all(torch.sub), 7, 13, 14)
function_operator("Mul", "``a * b``.", _all(torch.mul), 7, 13, 14)
function_operator("Sum", "The sum of all operands.", _all(torch.add), 8, 13)
function_operator("Pow", "``a ** b`` in the type of a.", lambda a, b: torch.pow(a, b.to(a.dtype)), 7, 12, 13, 15)
built_operator(
    "Max",
    "The largest of all operands; one bounded by constants saturates as Clip does.",
    lambda node: _extreme(node, torch.maximum),
    *(8, 12, 13),
    saturates=True,
)
built_operator(
    "Min",
    "The smallest of all operands; one bounded by constants saturates as Clip does.",
    lambda node: _extreme(node, torch.minimum),
    *(8, 12, 13),
    saturates=True,
)
