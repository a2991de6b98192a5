"""Piecewise-constant operators: their values are exact, their gradients straight-through.

The true gradient of each is zero almost everywhere, which would hide a direction that an attacker can still use.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from onnx import TensorProto
from torch import Tensor

from exporters.differentiable.operators._straight_through import straight_through
from exporters.differentiable.registry import Node, Operation, function_operator, operator

_FLOATS: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float32,
}
_INTEGERS: dict[int, torch.dtype] = {
    TensorProto.INT64: torch.int64,
    TensorProto.INT32: torch.int32,
    TensorProto.UINT8: torch.uint8,
    TensorProto.INT8: torch.int8,
}


@operator("Cast", 9, 13, 19, 21, 23, 24, 25)
def cast(node: Node) -> Operation:
    """Another number type; a value that becomes an integer keeps its gradient, as the integer's value in float.

    An integer tensor cannot carry a gradient in torch, so a cast to an integer truncates and stays in the float type
    of its input. Integers that do not come from the image, such as shapes, are integers. What becomes a truth value has
    no gradient.

    What is float16 in the file is float32 here: onnxruntime computes so on a CPU, and drops the casts between most
    operators. A value that is cast to float16 and straight back is rounded there, and so it is here. Where it rounds
    more (a Clip beside the file's own casts, a processor that computes in float16), the comparison finds it.
    """
    target = node.integer("to")
    _ignore_eight_bit_floats(node)
    node.require(target in _FLOATS or target in _INTEGERS or target == TensorProto.BOOL, f"a cast to type {target}")

    def run(x: Tensor) -> Tensor:
        if target == TensorProto.FLOAT16 and x.is_floating_point():
            return straight_through(x, x.half().to(x.dtype)) if node.rounds else x
        if target == TensorProto.BOOL:
            return x != 0
        return x.to(_FLOATS[target]) if target in _FLOATS else _as_integer(x, _INTEGERS[target], node.depends_on_input)

    return run


@operator("CastLike", 15, 19, 21, 23, 24, 25)
def cast_like(node: Node) -> Operation:
    """The number type of another value, whose own values do not matter; as Cast does it, but nothing is rounded."""
    _ignore_eight_bit_floats(node)

    def run(x: Tensor, like: Tensor) -> Tensor:
        if like.dtype == torch.bool:
            return x != 0
        return x.to(like.dtype) if like.is_floating_point() else _as_integer(x, like.dtype, node.depends_on_input)

    return run


def _rounded(function: Callable[[Tensor], Tensor]) -> Operation:
    return lambda x: straight_through(x, function(x))


def _as_integer(x: Tensor, dtype: torch.dtype, depends_on_input: bool) -> Tensor:
    return straight_through(x, torch.trunc(x)) if depends_on_input and x.is_floating_point() else x.to(dtype)


def _ignore_eight_bit_floats(node: Node) -> None:
    """What these attributes say concerns 8-bit floats only, and those are refused."""
    if node.version >= 19:
        node.integer("saturate", 1)
    if node.version >= 24:
        node.text("round_mode", "up")


function_operator("Round", "The nearest integer, halves to even.", _rounded(torch.round), 11, 22)
function_operator("Floor", "The largest integer not above x.", _rounded(torch.floor), 6, 13)
function_operator("Ceil", "The smallest integer not below x.", _rounded(torch.ceil), 6, 13)
function_operator("Sign", "-1, 0 or 1.", _rounded(torch.sign), 9, 13)
