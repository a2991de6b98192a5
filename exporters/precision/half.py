"""float16: half the size, computed in float16 where the processor can; what would overflow stays in float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper

from compressor.core.errors import UsageError
from exporters.model_file.runtime import Images
from exporters.precision._checking import finished, library_call
from exporters.precision.calibration import observe_values

HALF_LIMIT = 65504 / 4
"""The largest magnitude that a value may have on the calibration images: a quarter of the largest float16, because
other images reach further, and a converter clamps without a word."""


@dataclass(frozen=True)
class HalfModel:
    """A file in float16.

    Attributes:
        model: float32 images to float32 logits, float16 between them.
        kept: names of the operators left in float32, because they read or write values beyond ``HALF_LIMIT``.
    """

    model: onnx.ModelProto
    kept: tuple[str, ...]


def to_half(model: onnx.ModelProto, images: Images) -> HalfModel:
    """Convert an exported fp32 model; it is left as it is, and equal inputs give equal bytes.

    Args:
        model: an export, all of whose operators have names.
        images: float32 ``[n, C, H, W]`` in [0, 1], n at least 1, on which its values are measured.

    Raises:
        ExportError: it cannot be converted.
        UsageError: there are no images.
        UnsupportedOperatorError: the importer, which measures the values, lacks an operator.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    large = _large_values(model, images)
    kept = tuple(node.name for node in model.graph.node if not large.isdisjoint([*node.input, *node.output]))
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with library_call("float16"):
        half = convert_float_to_float16(copy, keep_io_types=True, node_block_list=list(kept))
        _restore_weights(half.graph, model.graph)
        _join_float32(half.graph)
    return HalfModel(finished(half, model, "float16"), kept)


def _restore_weights(graph: onnx.GraphProto, original: onnx.GraphProto) -> None:
    """Give operators in float32 their own weights: the converter rounds and clamps some, and casts them back."""
    weights = {tensor.name: tensor for tensor in original.initializer}
    nodes, restored = [], set[str]()
    for node in graph.node:
        if not (_is_cast(node, TensorProto.FLOAT) and node.input[0] in weights):
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
        elif node.output[0] not in restored:
            restored.add(node.output[0])
            tensor = graph.initializer.add()
            tensor.CopyFrom(weights[node.input[0]])
            tensor.name = node.output[0]
    _replace(graph, nodes)
    read = {name for node in nodes for name in node.input}
    for position in reversed(range(len(graph.initializer))):
        if graph.initializer[position].name not in read:
            del graph.initializer[position]


def _replace(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    del graph.node[:]
    graph.node.extend(nodes)


def _join_float32(graph: onnx.GraphProto) -> None:
    """Let operators in float32 hand their values to each other directly.

    The converter casts the result of each to float16 and back, where the very value that it was kept for overflows.
    The fp32 export has no float16 of its own, so every such pair is the converter's.
    """
    narrowed = {node.output[0]: node.input[0] for node in graph.node if _is_cast(node, TensorProto.FLOAT16)}
    sources = {
        node.output[0]: narrowed[node.input[0]]
        for node in graph.node
        if _is_cast(node, TensorProto.FLOAT) and node.input[0] in narrowed
    }
    ends = {value.name for value in graph.output}
    # The model's output keeps its name, so there the source takes it.
    names = {source: end for end, source in sources.items() if end in ends}
    names |= {end: names.get(source, source) for end, source in sources.items() if end not in ends}
    kept = [node for node in graph.node if not (node.output[0] in ends and node.output[0] in sources)]
    for node in kept:
        node.input[:] = [names.get(name, name) for name in node.input]
        if node.output[0] not in sources:
            node.output[:] = [names.get(name, name) for name in node.output]
    while unread := _unread_casts(kept, ends):
        kept = [node for node in kept if node.output[0] not in unread]
    _replace(graph, [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept])


def _unread_casts(nodes: list[onnx.NodeProto], ends: set[str]) -> set[str]:
    read = {name for node in nodes for name in node.input} | ends
    return {node.output[0] for node in nodes if node.op_type == "Cast" and node.output[0] not in read}


def _is_cast(node: onnx.NodeProto, to: int) -> bool:
    return node.op_type == "Cast" and any(entry.name == "to" and entry.i == to for entry in node.attribute)


def _large_values(model: onnx.ModelProto, images: Images) -> set[str]:
    """The names of weights and values whose magnitude exceeds the limit, or that are no finite numbers."""
    if len(images) == 0:
        raise UsageError("calibration needs at least one image.")
    weights = ((tensor.name, numpy_helper.to_array(tensor)) for tensor in model.graph.initializer)
    large = {name for name, value in weights if value.dtype == np.float32 and not _fits(torch.from_numpy(value.copy()))}

    def observe(name: str, value: torch.Tensor) -> None:
        if value.is_floating_point() and not _fits(value):
            large.add(name)

    observe_values(model, images, observe)
    return large


def _fits(value: torch.Tensor) -> bool:
    return bool((value.abs() <= HALF_LIMIT).all())  # false for NaN
