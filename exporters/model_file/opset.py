"""Which operator set a file is written in: the oldest runtimes know few, and what a file says of itself must be so.

The exporter of torch writes opset 18 and later ones. Earlier ones are made here, operator by operator: one whose
definition did not change in between stays as it is, the others are rewritten by a rule of their own, and one that has
no rule is refused. (onnx's converter has no way below opset 14, and leaves attributes behind that are not valid there.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from compressor.core.errors import ExportError, UsageError

OPSET = 20
"""The default."""
OPSETS = range(13, 22)
"""What can be asked for. Scales by channel, which INT8 needs, begin at 13; what runs on phones is behind onnx."""
EXPORTERS_OPSETS = range(18, 22)
"""What torch's exporter writes by itself."""

Constants = Mapping[str, np.ndarray[Any, Any]]
Rule = Callable[[onnx.NodeProto, Constants], list[onnx.NodeProto]]
"""A node of ``EXPORTERS_OPSETS[0]`` and the graph's constants to the nodes that stand in its place."""


def check_opset(opset: int) -> None:
    """Refuse what cannot be exported.

    Raises:
        UsageError: the opset is not one of ``OPSETS``.
    """
    if opset not in OPSETS:
        raise UsageError(
            f"opset {opset} cannot be exported, only {OPSETS[0]} to {OPSETS[-1]}.",
            f"Leave --opset out for {OPSET}, or ask for the newest that your runtime knows.",
        )


def opset_of(model: onnx.ModelProto) -> int | None:
    """The version of ONNX's own operators that a model uses; None where it does not name just one."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    return versions[0] if len(versions) == 1 else None


def match_ir_version(model: onnx.ModelProto) -> None:
    """Give a model, in place, the IR version that came with its opset: older runtimes refuse a newer one."""
    model.ir_version = helper.find_min_ir_version_for(list(model.opset_import))


def lower(model: onnx.ModelProto, opset: int) -> None:
    """Rewrite an export, in place, from the exporter's lowest opset in an earlier one.

    Args:
        model: of opset ``EXPORTERS_OPSETS[0]``, with neither functions nor nested graphs.
        opset: of ``OPSETS``.

    Raises:
        ExportError: an operator cannot be said in that opset.
    """
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [made for node in graph.node for made in _lowered(node, opset, constants)]
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    for field in (graph.initializer, graph.value_info):
        made = {name for node in nodes for name in node.output} if field is graph.value_info else set()
        kept = [value for value in field if value.name in read | made]
        del field[:]
        field.extend(kept)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", opset))


def _lowered(node: onnx.NodeProto, opset: int, constants: Constants) -> list[onnx.NodeProto]:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    try:
        now = onnx.defs.get_schema(node.op_type, EXPORTERS_OPSETS[0], node.domain).since_version
    except onnx.defs.SchemaError as error:
        raise ExportError(f"the exporter wrote an operator {node.op_type[:60]!r} that ONNX does not know.") from error
    if now <= opset:
        return [copy]
    rule = _RULES.get(node.op_type)
    if rule is None:
        raise _impossible(node, f"it was defined anew in opset {now}")
    return rule(copy, constants)


def _same(node: onnx.NodeProto, constants: Constants) -> list[onnx.NodeProto]:
    """The later definition only took more number types in."""
    return [node]


def _batch_normalization(node: onnx.NodeProto, constants: Constants) -> list[onnx.NodeProto]:
    _drop(node, "training_mode", 0)
    return [node]


def _hard_swish(node: onnx.NodeProto, constants: Constants) -> list[onnx.NodeProto]:
    """``x HardSigmoid(x)``, with a slope of 1/6: its definition, and before opset 14 the only way to say it."""
    (x,), (y,) = node.input, node.output
    gate = helper.make_node("HardSigmoid", [x], [f"{y}_gate"], name=f"{node.name}_gate", alpha=1 / 6, beta=0.5)
    return [gate, helper.make_node("Mul", [x, f"{y}_gate"], [y], name=node.name)]


def _pad(node: onnx.NodeProto, constants: Constants) -> list[onnx.NodeProto]:
    if len(node.input) > 3 and node.input[3]:
        raise _impossible(node, "it pads some axes only")
    del node.input[3:]
    return [node]


def _reduce_mean(node: onnx.NodeProto, constants: Constants) -> list[onnx.NodeProto]:
    """The axes are an attribute before opset 18."""
    axes = constants.get(node.input[1]) if len(node.input) > 1 else None
    if axes is None or axes.size == 0:
        raise _impossible(node, "its axes are not constant")
    _drop(node, "noop_with_empty_axes")  # they are not empty
    del node.input[1:]
    node.attribute.append(helper.make_attribute("axes", axes.tolist()))
    return [node]


def _reshape(node: onnx.NodeProto, constants: Constants) -> list[onnx.NodeProto]:
    shape = constants.get(node.input[1])
    without_zeros = shape is not None and bool((shape != 0).all())
    _drop(node, "allowzero", None if without_zeros else 0)
    return [node]


def _split(node: onnx.NodeProto, constants: Constants) -> list[onnx.NodeProto]:
    """Equal parts are counted by the outputs before opset 18; unequal ones without sizes are then not valid."""
    _drop(node, "num_outputs")
    return [node]


def _shape(node: onnx.NodeProto, constants: Constants) -> list[onnx.NodeProto]:
    _drop(node, "start", 0)
    if any(attribute.name == "end" for attribute in node.attribute):
        raise _impossible(node, "it takes a part of the shape")
    return [node]


_RULES: dict[str, Rule] = {
    **dict.fromkeys(("Add", "Div", "Identity", "Mul", "Relu", "Sub"), _same),
    "BatchNormalization": _batch_normalization,
    "HardSwish": _hard_swish,
    "Pad": _pad,
    "ReduceMean": _reduce_mean,
    "Reshape": _reshape,
    "Shape": _shape,
    "Split": _split,
}


def _drop(node: onnx.NodeProto, name: str, only: int | None = None) -> None:
    """Take an attribute off that earlier definitions lack; ``only`` is the one value that they mean without it."""
    for position, attribute in enumerate(node.attribute):
        if attribute.name == name:
            if only is not None and attribute.i != only:
                raise _impossible(node, f"its attribute {name!r} is {attribute.i}")
            del node.attribute[position]
            return


def _impossible(node: onnx.NodeProto, reason: str) -> ExportError:
    return ExportError(
        f"the operator {node.op_type[:60]!r} cannot be written in this opset: {reason}.",
        f"Use --opset {EXPORTERS_OPSETS[0]} or above.",
    )
