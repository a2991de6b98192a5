"""Piecewise-constant operators: their values are exact, their gradients straight-through.

The true gradient of each is zero almost everywhere, which would hide the path that an attacker can still climb.

Source: Bengio et al. 2013; Athalye et al. 2018, section 4.1 (BPDA with the identity).
"""

from __future__ import annotations

import torch
from onnx import TensorProto
from torch import Tensor

from exporters.differentiable.registry import Node, Operation, operator

_FLOATS: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float32,
}
_INTEGERS: dict[int, torch.dtype] = {TensorProto.INT64: torch.int64, TensorProto.INT32: torch.int32}


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def straight_through(x: Tensor, value: Tensor) -> Tensor:
    """Exactly ``value``, with the gradient of ``x``; both of one shape ``[...]``."""
    result: Tensor = _StraightThrough.apply(x, value.detach())
    return result


@operator("Round", 11, 22)
def round_(node: Node) -> Operation:
    """The nearest integer, halves to even."""
    return lambda x: straight_through(x, torch.round(x))


@operator("Floor", 6, 13)
def floor(node: Node) -> Operation:
    """The largest integer not above x."""
    return lambda x: straight_through(x, torch.floor(x))


@operator("Ceil", 6, 13)
def ceil(node: Node) -> Operation:
    """The smallest integer not below x."""
    return lambda x: straight_through(x, torch.ceil(x))


@operator("Sign", 9, 13)
def sign(node: Node) -> Operation:
    """-1, 0 or 1."""
    return lambda x: straight_through(x, torch.sign(x))


@operator("Cast", 9, 13, 19, 21)
def cast(node: Node) -> Operation:
    """Another number type; a value that becomes an integer keeps its gradient, as the integer's value in float.

    An integer tensor cannot carry a gradient in torch, so a cast to an integer truncates and stays in the float type
    of its input. Integers that are shapes stay integers.

    What is float16 in the file is float32 here: onnxruntime computes so on a CPU, and drops the casts between most
    operators. A value that is cast to float16 and straight back is rounded there, and so it is here. Where it rounds
    more (a Clip beside the file's own casts, a processor that computes in float16), the gate finds the difference.
    """
    target = node.integer("to")
    if node.version >= 19:
        node.integer("saturate", 1)  # says something about 8-bit floats only, and those are refused
    node.require(target in _FLOATS or target in _INTEGERS, f"a cast to type {target}")

    def run(x: Tensor) -> Tensor:
        if target == TensorProto.FLOAT16 and x.is_floating_point():
            return straight_through(x, x.half().to(x.dtype)) if node.rounds else x
        if target in _FLOATS:
            return x.to(_FLOATS[target])
        if x.is_floating_point():
            return straight_through(x, torch.trunc(x))
        return x.to(_INTEGERS[target])

    return run
