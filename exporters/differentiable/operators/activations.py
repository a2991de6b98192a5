"""Activations, and Clip, which saturates on purpose."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from exporters.differentiable.operators._straight_through import straight_through
from exporters.differentiable.registry import Node, Operation, function_operator, operator


@operator("PRelu", 9, 16)
def parametric_relu(node: Node) -> Operation:
    """``x``, or ``slope x`` below zero, with slopes that broadcast to x."""
    return lambda x, slope: torch.where(x < 0, slope.expand_as(x) * x, x)


@operator("ThresholdedRelu", 10, 22)
def thresholded_relu(node: Node) -> Operation:
    """The value where it is above ``alpha``, else 0."""
    alpha = node.real("alpha", 1.0)
    return lambda x: torch.where(x > alpha, x, torch.zeros_like(x))


@operator("Selu", 6, 22)
def selu(node: Node) -> Operation:
    """``gamma`` times Elu."""
    alpha, gamma = node.real("alpha", 1.67326319217681884765625), node.real("gamma", 1.05070102214813232421875)
    return lambda x: gamma * F.elu(x, alpha)


@operator("Celu", 12)
def celu(node: Node) -> Operation:
    """``max(0, x) + min(0, alpha (e^(x / alpha) - 1))``."""
    alpha = node.real("alpha", 1.0)
    node.require(alpha != 0, "an alpha of zero")
    return lambda x: F.celu(x, alpha)


@operator("Gelu", 20)
def gelu(node: Node) -> Operation:
    """The value times the normal distribution function of it, or its approximation by tanh."""
    approximate = node.text("approximate", "none")
    node.require(approximate in ("none", "tanh"), f"approximate {approximate[:30]!r}")
    return lambda x: F.gelu(x, approximate=approximate)


@operator("HardSigmoid", 6, 22, saturates=True)
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


@operator("Clip", 11, 12, 13, saturates=True)
def clip(node: Node) -> Operation:
    """``min(max(x, low), high)``; where it saturates, the gradient is zero, or passes if straight-through is asked."""

    def run(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
        if low is None and high is None:
            return x
        clipped = torch.clamp(x, low, high)
        return straight_through(x, clipped) if node.straight_through else clipped

    return run


@operator("Softmax", 11, 13)
def softmax(node: Node) -> Operation:
    """``exp(x) / sum(exp(x))`` along one axis; before version 13, over all axes from that one on."""
    return _along_axis(node, torch.softmax)


@operator("LogSoftmax", 11, 13)
def log_softmax(node: Node) -> Operation:
    """``x - log(sum(exp(x)))`` along one axis; before version 13, over all axes from that one on."""
    return _along_axis(node, torch.log_softmax)


def _alpha_operator(
    name: str, summary: str, function: Callable[[Tensor, float], Tensor], default: float, *versions: int
) -> None:
    """Register a function of x and of the attribute ``alpha``."""

    def builder(node: Node) -> Operation:
        alpha = node.real("alpha", default)
        return lambda x: function(x, alpha)

    builder.__doc__ = summary
    operator(name, *versions)(builder)


def _along_axis(node: Node, function: Callable[[Tensor, int], Tensor]) -> Operation:
    axis = node.integer("axis", -1 if node.version >= 13 else 1)
    if node.version >= 13:
        return lambda x: function(x, axis)
    return lambda x: function(x.flatten(range(x.dim())[axis]), -1).reshape(x.shape)


function_operator("Relu", "``max(x, 0)``.", torch.relu, 6, 13, 14)
function_operator("Sigmoid", "``1 / (1 + exp(-x))``.", torch.sigmoid, 6, 13)
function_operator("Softplus", "``log(1 + e^x)``.", F.softplus, 1, 22)
function_operator("Softsign", "``x / (1 + |x|)``.", F.softsign, 1, 22)
function_operator("Mish", "``x tanh(softplus(x))``.", F.mish, 18, 22)
_alpha_operator("LeakyRelu", "``x``, or ``alpha x`` below zero.", F.leaky_relu, 0.01, 6, 16)
_alpha_operator("Elu", "``x``, or ``alpha (e^x - 1)`` below zero.", F.elu, 1.0, 6, 22)
_alpha_operator("Swish", "``x sigmoid(alpha x)``.", lambda x, alpha: x * torch.sigmoid(alpha * x), 1.0, 24)
