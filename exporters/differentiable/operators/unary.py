"""Functions of one value, cell by cell, that are smooth almost everywhere."""

from __future__ import annotations

import torch

from exporters.differentiable.registry import Node, Operation, operator


@operator("Abs", 6, 13)
def abs_(node: Node) -> Operation:
    """``|x|``."""
    return torch.abs


@operator("Neg", 6, 13)
def neg(node: Node) -> Operation:
    """``-x``."""
    return torch.neg


@operator("Reciprocal", 6, 13)
def reciprocal(node: Node) -> Operation:
    """``1 / x``."""
    return torch.reciprocal


@operator("Sqrt", 6, 13)
def sqrt(node: Node) -> Operation:
    """The square root; not a number below zero."""
    return torch.sqrt


@operator("Exp", 6, 13)
def exp(node: Node) -> Operation:
    """``e ** x``."""
    return torch.exp


@operator("Log", 6, 13)
def log(node: Node) -> Operation:
    """The natural logarithm."""
    return torch.log


@operator("Sin", 7, 22)
def sin(node: Node) -> Operation:
    """The sine of x radians."""
    return torch.sin


@operator("Cos", 7, 22)
def cos(node: Node) -> Operation:
    """The cosine of x radians."""
    return torch.cos


@operator("Tanh", 6, 13)
def tanh(node: Node) -> Operation:
    """The hyperbolic tangent."""
    return torch.tanh


@operator("Erf", 9, 13)
def erf(node: Node) -> Operation:
    """The error function."""
    return torch.erf
