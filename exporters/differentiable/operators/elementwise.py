"""Arithmetic with broadcasting, activations and Clip."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from exporters.differentiable.operators.rounding import straight_through
from exporters.differentiable.registry import Node, Operation, operator


@operator("Add", 7, 13, 14)
def add(node: Node) -> Operation:
    """``a + b``."""
    return _binary(torch.add)


@operator("Sub", 7, 13, 14)
def sub(node: Node) -> Operation:
    """``a - b``."""
    return _binary(torch.sub)


@operator("Mul", 7, 13, 14)
def mul(node: Node) -> Operation:
    """``a * b``."""
    return _binary(torch.mul)


@operator("Div", 7, 13, 14)
def div(node: Node) -> Operation:
    """``a / b``; integers are divided towards zero."""

    def run(a: Tensor, b: Tensor) -> Tensor:
        return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")

    return _binary(run)


@operator("Relu", 6, 13, 14)
def relu(node: Node) -> Operation:
    """``max(x, 0)``."""
    return torch.relu


@operator("Sigmoid", 6, 13)
def sigmoid(node: Node) -> Operation:
    """``1 / (1 + exp(-x))``."""
    return torch.sigmoid


@operator("HardSigmoid", 6, 22)
def hard_sigmoid(node: Node) -> Operation:
    """``min(max(alpha x + beta, 0), 1)``; where it saturates, as for Clip."""
    alpha, beta = node.real("alpha", 0.2), node.real("beta", 0.5)

    def run(x: Tensor) -> Tensor:
        line = alpha * x + beta
        clamped = torch.clamp(line, 0, 1)
        return straight_through(line, clamped) if node.straight_through else clamped

    return run


@operator("HardSwish", 14, 22)
def hard_swish(node: Node) -> Operation:
    """``x min(max(x / 6 + 1/2, 0), 1)``, with its own gradient: beyond the bend it is ReLU, and no saturation."""
    return F.hardswish


@operator("Clip", 11, 12, 13)
def clip(node: Node) -> Operation:
    """``min(max(x, low), high)``; where it saturates, the gradient is zero, or passes if straight-through is asked."""

    def run(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        if low is None and high is None:
            return x
        clipped = torch.clamp(x, low, high)
        return straight_through(x, clipped) if node.straight_through else clipped

    return run


@operator("Softmax", 13)
def softmax(node: Node) -> Operation:
    """``exp(x) / sum(exp(x))`` along one axis."""
    axis = node.integer("axis", -1)
    return lambda x: torch.softmax(x, axis)


@operator("LogSoftmax", 13)
def log_softmax(node: Node) -> Operation:
    """``x - log(sum(exp(x)))`` along one axis."""
    axis = node.integer("axis", -1)
    return lambda x: torch.log_softmax(x, axis)


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    def run(a: Tensor, b: Tensor) -> Tensor:
        # ONNX never promotes; torch would, and so would hide a file that onnxruntime refuses.
        if a.dtype != b.dtype:
            raise TypeError("the operands are of two types")
        return function(a, b)

    return run
