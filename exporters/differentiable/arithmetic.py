"""The arithmetic of a file, read from its operators and not from its claim."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

Arithmetic = Literal["fp32", "fp16", "int8"]

_QUANTISERS = frozenset({"QuantizeLinear", "DynamicQuantizeLinear"})


def arithmetic_of(model: onnx.ModelProto) -> Arithmetic:
    """``int8`` where an operator quantises, else ``fp16`` where a weight or a cast is float16, else ``fp32``."""
    if any(node.op_type in _QUANTISERS for node in model.graph.node):
        return "int8"
    halves = any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)
    return "fp16" if halves or any(_casts_to_half(node) for node in model.graph.node) else "fp32"


def output_step(model: onnx.ModelProto) -> float:
    """The distance between two neighbouring values of the logits where a DequantizeLinear gives them, else 0."""
    (output,) = (value.name for value in model.graph.output)
    last = next((node for node in model.graph.node if output in node.output), None)
    if last is None or last.op_type != "DequantizeLinear" or len(last.input) < 2:
        return 0.0
    scale = next((tensor for tensor in model.graph.initializer if tensor.name == last.input[1]), None)
    if scale is None or scale.data_type != TensorProto.FLOAT:
        return 0.0
    return float(np.max(numpy_helper.to_array(scale), initial=0.0))


def _casts_to_half(node: onnx.NodeProto) -> bool:
    return node.op_type == "Cast" and any(
        entry.name == "to" and entry.i == TensorProto.FLOAT16 for entry in node.attribute
    )
