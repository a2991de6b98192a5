"""What is refused in a file of unknown origin before anything runs it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto

from compressor.core.errors import MissingInputError, UnreadableModelError
from compressor.system.files import read_regular
from compressor.system.memory import is_out_of_memory
from exporters.model_file.input_layout import DeclaredLayout, read_declared_layout
from exporters.model_file.opset import opset_of

_DEFAULT_DOMAIN = ("", "ai.onnx")
_REAL = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """How large an untrusted file may be.

    Attributes:
        file_bytes: the file.
        nodes: operators in the graph.
        tensors: weights and constants, each of them; onnxruntime's time grows with the square of their number.
        metadata_bytes: all metadata keys and values together; the claim is among them.
        image_side: height and width of the images, in pixels.
        batch: images that a file of a fixed batch takes at once.
        classes: logits.
    """

    file_bytes: int = 1024 * _MIB
    nodes: int = 20_000
    tensors: int = 50_000
    metadata_bytes: int = 16 * _MIB
    image_side: int = 4096
    batch: int = 1024
    classes: int = 100_000


class StructureFinding(NamedTuple):
    """One check: its name, ``passed``, and what was found."""

    name: str
    status: str
    detail: str


class CheckedModel(NamedTuple):
    """A file that passed: its message, its bytes, and the findings in the order they were made."""

    model: onnx.ModelProto
    data: bytes
    findings: list[StructureFinding]


def load_untrusted(path: Path, limits: Limits | None = None) -> CheckedModel:
    """Read an ONNX file that anyone may have written, and refuse what this project's exports never contain.

    Args:
        path: the file.
        limits: sizes beyond which it is not read; the defaults where it is ``None``.

    Raises:
        MissingInputError: there is no such file, or it is a folder.
        UnreadableModelError: empty, damaged, beyond the limits, or not a plain image classifier.
    """
    limits = limits or Limits()
    data = _read(path, limits)
    model = parse_model(data)
    findings = [StructureFinding("size", "passed", f"{len(data):,} bytes")]
    findings += check_structure(model, limits, file_bytes=len(data))
    return CheckedModel(model, data, findings)


def parse_model(data: bytes) -> onnx.ModelProto:
    """Decode a model.

    Raises:
        UnreadableModelError: these bytes are no ONNX model. MemoryError: there was not enough to tell.
    """
    if not data:
        raise UnreadableModelError("the model file is empty.")
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except (DecodeError, ValueError, RecursionError) as error:
        if is_out_of_memory(error):  # a decoder without memory says so by the error that it has for damage
            raise MemoryError("the model file does not fit into it") from error
        raise UnreadableModelError("the file is not an ONNX model, or it is damaged or truncated.") from error
    if not model.graph.node:
        raise UnreadableModelError("the file is not an ONNX model: it has no graph.")
    return model


def check_structure(model: onnx.ModelProto, limits: Limits, *, file_bytes: int) -> list[StructureFinding]:
    """Check everything that can be checked without running the model; one finding a check.

    Args:
        model: the decoded file.
        limits: sizes that are allowed.
        file_bytes: the file's size, which bounds what its weights can be.

    Raises:
        UnreadableModelError: the first check that fails.
    """
    nodes = _check_nodes(model, limits)
    _require(all(isinstance(name, str) for name in _names(model)), "the model's names are not text.")
    return [
        nodes,
        _check_metadata(model, limits),
        _check_domains(model),
        _check_nesting(model),
        _check_weights(model, limits, file_bytes),
        _check_form(model, limits),
        _check_valid(model),
    ]


def _read(path: Path, limits: Limits) -> bytes:
    try:
        if path.is_dir():
            raise MissingInputError(f"{path} is a folder, and an ONNX file was expected.")
        data = read_regular(path, limits.file_bytes)
    except FileNotFoundError:
        raise MissingInputError(f"there is no file {path}.") from None
    except OSError as error:
        raise MissingInputError(f"cannot read {path}: {error.strerror or error}.") from error
    if data is None:
        raise UnreadableModelError(f"the model file is larger than the limit of {limits.file_bytes:,} bytes.")
    return data


def _check_nodes(model: onnx.ModelProto, limits: Limits) -> StructureFinding:
    count = len(model.graph.node)
    _require(count <= limits.nodes, f"the model has {count:,} operators, and the limit is {limits.nodes:,}.")
    return StructureFinding("nodes", "passed", f"{count:,} operators")


def _names(model: onnx.ModelProto) -> Iterator[Any]:
    """Every name that is read here or later; protobuf gives bytes for what is not UTF-8."""
    graph = model.graph
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    yield from (named.name for named in (graph, *graph.input, *graph.output, *graph.initializer))
    yield from (entry.domain for entry in model.opset_import)
    yield from (text for entry in model.metadata_props for text in (entry.key, entry.value))


def _check_metadata(model: onnx.ModelProto, limits: Limits) -> StructureFinding:
    size = sum(len(entry.key.encode()) + len(entry.value.encode()) for entry in model.metadata_props)
    _require(size <= limits.metadata_bytes, f"the model's metadata is larger than {limits.metadata_bytes:,} bytes.")
    keys = [entry.key for entry in model.metadata_props]
    _require(len(set(keys)) == len(keys), "the model's metadata gives one key twice.")
    return StructureFinding("metadata", "passed", f"{len(keys)} entries, {size:,} bytes")


def _check_domains(model: onnx.ModelProto) -> StructureFinding:
    # Exporters name domains that no operator is of; those do no harm.
    foreign = {node.domain for node in model.graph.node} - set(_DEFAULT_DOMAIN)
    if foreign:
        raise UnreadableModelError(
            f"the model uses operators of the custom domain {min(foreign)[:60]!r}.",
            "Export it with ONNX's own operators; quantise it in QDQ format.",
        )
    opset = opset_of(model)
    _require(opset is not None, "the model does not say which opset it uses.")
    return StructureFinding("domains", "passed", f"only ONNX operators, opset {opset}")


def _check_nesting(model: onnx.ModelProto) -> StructureFinding:
    _require(not model.functions, "the model has nested functions, which could hide what it computes.")
    _require(not model.training_info, "the model has training information, which could change its weights.")
    for node in model.graph.node:
        nested = any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
        _require(
            not nested and node.op_type not in ("If", "Loop", "Scan"),
            f"the model has a nested graph in an operator {node.op_type[:60]!r}, which could hide what it computes.",
        )
    return StructureFinding("nesting", "passed", "one flat graph")


def _check_weights(model: onnx.ModelProto, limits: Limits, file_bytes: int) -> StructureFinding:
    count = 0
    for number, tensor in enumerate(_tensors(model)):
        _require(number < limits.tensors, f"the model has more than {limits.tensors:,} weights and constants.")
        outside = tensor.data_location == TensorProto.EXTERNAL or bool(tensor.external_data)
        _require(
            not outside,
            f"the weights {tensor.name[:60]!r} are in another file, and only one file is read.",
            "Save it with its weights inside.",
        )
        # Four bits are the smallest number: a file cannot hold more than two of them a byte.
        held = all(size >= 0 for size in tensor.dims) and math.prod(tensor.dims) <= 2 * file_bytes
        _require(held, f"the weights {tensor.name[:60]!r} claim to be larger than the file.")
        count += math.prod(tensor.dims)
    return StructureFinding("weights", "passed", f"{count:,} numbers, all inside the file")


def _tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    _require(not model.graph.sparse_initializer, "the model has sparse weights, which this project does not write.")
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            sparse = attribute.HasField("sparse_tensor") or attribute.sparse_tensors
            _require(not sparse, "the model has sparse weights, which this project does not write.")
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def count_model_parameters(model: onnx.ModelProto) -> int:
    """How many weights and biases a model has, whatever their precision: scales, zero points and scalars are none.

    Args:
        model: only its initializers count, each once.
    """
    quantisers = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    quantised = {node.input[0] for node in quantisers}
    settings = {name for node in quantisers for name in node.input[1:]}
    return sum(
        math.prod(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.dims and (tensor.name in quantised or (tensor.data_type in _REAL and tensor.name not in settings))
    )


def declared_layout_of(model: onnx.ModelProto) -> DeclaredLayout:
    """How a model wants its images, by the sizes of its input and output.

    Raises:
        UnreadableModelError: it is not an image classifier.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    outputs = list(model.graph.output)
    for count, kind in ((len(inputs), "inputs"), (len(outputs), "outputs")):
        _require(count == 1, f"the model has {count} {kind}, and an image classifier has one.")
    return read_declared_layout(_sizes(inputs[0], "input"), _sizes(outputs[0], "output"))


def _check_form(model: onnx.ModelProto, limits: Limits) -> StructureFinding:
    form = declared_layout_of(model)
    for side in (form.height, form.width):
        _require(
            side is None or side <= limits.image_side,
            f"the model's images are larger than {limits.image_side} pixels a side.",
        )
    _require((form.batch or 1) <= limits.batch, f"the model takes more than {limits.batch:,} images at once.")
    _require(form.classes <= limits.classes, f"the model has more than {limits.classes:,} classes.")
    return StructureFinding("form", "passed", f"{form}, {form.classes} classes")


def _sizes(value: Any, kind: str) -> list[int | None]:
    """The sizes of an input or output; ``None`` where one is open."""
    tensor = value.type.tensor_type
    _require(tensor.elem_type == TensorProto.FLOAT, f"the model's {kind} is not float32.")
    return [size.dim_value if size.HasField("dim_value") else None for size in tensor.shape.dim]


def _check_valid(model: onnx.ModelProto) -> StructureFinding:
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, TypeError) as error:
        line = (str(error).strip().splitlines() or ["no reason given"])[0][:200].rstrip(".")
        # The text may quote the file, and a terminal would obey control characters.
        line = "".join(character if character.isprintable() else "?" for character in line)
        raise UnreadableModelError(f"the model is not valid ONNX: {line}.") from error
    return StructureFinding("checker", "passed", f"valid ONNX, IR version {model.ir_version}")


def _require(holds: bool, message: str, hint: str = "") -> None:
    if not holds:
        raise UnreadableModelError(message, hint)
