"""What both conversions share: the library's noise held back, and its result checked."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

import onnx

from compressor.core.errors import ExportError
from exporters.writing.onnx import strip_traces


@contextmanager
def library_call(precision: str) -> Iterator[None]:
    """Run a converter: what it says to the log stays unsaid, and whatever it raises becomes an ExportError."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        # Some print what they do, on a stdout that belongs to the command's answer.
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # the converters raise all kinds
        raise ExportError(f"the model cannot be converted to {precision}: {str(error)[:300]}") from error
    finally:
        logging.disable(before)


def finished(model: onnx.ModelProto, original: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """The converted model in the order of its values, under the original's ends, without the converter's notes.

    Raises:
        ExportError: it is not valid, or its input, output or opset is not the original's.
    """
    del model.metadata_props[:]
    model.metadata_props.extend(original.metadata_props)
    model.ir_version = original.ir_version
    strip_traces_of(model)
    del model.graph.value_info[:]  # a converter leaves types there that are no longer so
    _drop_repetitions(model.graph)
    _sort(model.graph)
    if list(model.graph.input) != list(original.graph.input) or list(model.graph.output) != list(original.graph.output):
        raise ExportError(f"the conversion to {precision} changed the model's input or output.")
    if list(model.opset_import) != list(original.opset_import):
        raise ExportError(f"the conversion to {precision} changed the model's opset.")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise ExportError(f"the model converted to {precision} is not valid ONNX: {str(error)[:300]}") from error
    return model


def strip_traces_of(model: onnx.ModelProto) -> None:
    """Remove the notes of nodes and values, and keep the model's own metadata."""
    kept = list(model.metadata_props)
    strip_traces(model)
    model.metadata_props.extend(kept)


def _drop_repetitions(graph: onnx.GraphProto) -> None:
    # float16's converter writes one and the same Cast for each float32 reader of a value.
    seen: dict[tuple[str, ...], onnx.NodeProto] = {}
    repeated = []
    for position, node in enumerate(graph.node):
        first = seen.setdefault(tuple(node.output), node)
        same = first.op_type == node.op_type == "Cast" and first.input == node.input
        if first is not node and same and first.attribute == node.attribute:
            repeated.append(position)
    for position in reversed(repeated):
        del graph.node[position]


def _sort(graph: onnx.GraphProto) -> None:
    # A converter may append its casts at the end; ONNX wants every value computed before it is read.
    known = {"", *(value.name for value in graph.input), *(tensor.name for tensor in graph.initializer)}
    waiting, ordered = list(graph.node), []
    while waiting:
        ready = next((i for i, node in enumerate(waiting) if known.issuperset(node.input)), None)
        if ready is None:
            raise ExportError("the converted model reads a value that nothing computes.")
        node = onnx.NodeProto()
        node.CopyFrom(waiting.pop(ready))
        ordered.append(node)
        known.update(node.output)
    del graph.node[:]
    graph.node.extend(ordered)
