"""A classifier as an ONNX file: [0, 1] images in, logits out, normalisation inside, equal bytes for equal weights."""

from __future__ import annotations

import copy
import getpass
import io
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from compressor.core.errors import ExportError, UnreadableModelError, UsageError
from compressor.system.devices import full_float32
from exporters.claim import claim
from exporters.differentiable.logit_agreement import compare_logits
from exporters.model_file.opset import EXPORTERS_OPSETS, OPSET, check_opset, lower, match_ir_version
from exporters.model_file.runtime import Images, open_session

INPUT_NAME = "input"
OUTPUT_NAME = "logits"

PARITY_LOGIT_TOLERANCE = 1e-4
"""The largest difference between torch's logits and the file's, as a part of the logit scale."""
PARITY_ARGMAX_AGREEMENT = 0.99
"""The part of the images on which both must predict the same class; the rest is for ties."""

_EXAMPLE_BATCH = 2  # the exporter may take a batch of 1 for a constant
_PARITY_BATCH = 64


@dataclass(frozen=True)
class Parity:
    """How far the exported file is from the classifier it was made of.

    Attributes:
        images: how many images were compared.
        argmax_agreement: the part of them, 0 to 1, on which both predict the same class.
        max_relative_error: the largest logit difference, as a part of the logit scale.
    """

    images: int
    argmax_agreement: float
    max_relative_error: float


def export_onnx(classifier: nn.Module, image_size: int, *, channels: int = 3, opset: int = OPSET) -> onnx.ModelProto:
    """Export a classifier, in eval mode, with a dynamic batch and all its weights in one message.

    The classifier is left as it was: the exporter works on a copy.

    Args:
        classifier: takes float32 ``[B, C, H, W]`` in [0, 1] and gives logits ``[B, K]``.
        image_size: H and W, in pixels.
        channels: C.
        opset: of the file, one of :data:`exporters.model_file.opset.OPSETS`; its IR version is the one that came with
            it.

    Returns:
        A checked model from ``input`` to ``logits``; nothing in it names a file or a line of code.

    Raises:
        ExportError: the network cannot be exported, or the result is not what was asked for.
        UsageError: the image size is not positive, or the opset is none that can be exported.
    """
    check_opset(opset)
    if image_size < 1:
        raise UsageError(f"an image size of {image_size} is not positive.")
    frozen = _frozen_copy(classifier)
    example = torch.full((_EXAMPLE_BATCH, channels, image_size, image_size), 0.5)
    with _quiet(), _named_user():
        try:
            program = torch.onnx.export(
                frozen,
                (example,),
                dynamo=True,
                opset_version=max(opset, EXPORTERS_OPSETS[0]),
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
        except Exception as error:  # the exporter lets any exception of the network's own forward through
            raise ExportError(
                f"the model cannot be exported: {_first_line(error)}", "Only networks with a dynamic batch can be."
            ) from error
    if program is None:
        raise ExportError("the exporter gave no model.")
    model: onnx.ModelProto = program.model_proto
    strip_traces(model)
    if opset < EXPORTERS_OPSETS[0]:
        _check_opset(model, EXPORTERS_OPSETS[0])
        lower(model, opset)
    match_ir_version(model)
    _check(model, opset)
    return model


@full_float32()
def check_parity(classifier: nn.Module, model: bytes | onnx.ModelProto, images: Tensor | Images) -> Parity:
    """Compare the file under onnxruntime with the classifier in torch, both on the CPU in float32.

    Args:
        classifier: what was exported.
        model: the export.
        images: float32 ``[B, C, H, W]`` in [0, 1]; give clean and adversarial ones.

    Raises:
        ExportError: they disagree beyond ``PARITY_LOGIT_TOLERANCE`` or ``PARITY_ARGMAX_AGREEMENT``.
        UsageError: there are no images to compare.
    """
    x = images.detach().to("cpu", torch.float32) if isinstance(images, Tensor) else torch.from_numpy(images)
    if len(x) == 0:
        raise UsageError("parity needs at least one image.")
    frozen = _frozen_copy(classifier)
    with torch.no_grad():
        expected = torch.cat([frozen(part) for part in torch.split(x, _PARITY_BATCH)]).numpy()
    session = open_session(model if isinstance(model, bytes) else serialise(model))
    result = compare_logits(expected, session(np.ascontiguousarray(x.numpy())), PARITY_LOGIT_TOLERANCE)
    if not result.passed or result.argmax_agreement < PARITY_ARGMAX_AGREEMENT:
        raise ExportError(
            f"the exported file does not compute what the checkpoint computes: logits differ by "
            f"{result.max_relative_error:.2g} of their scale, predictions agree on {result.argmax_agreement:.1%} of "
            f"{len(x)} images.",
            "Nothing was written; please report the architecture and the versions of torch and onnxscript.",
        )
    return Parity(len(x), result.argmax_agreement, result.max_relative_error)


def serialise(model: onnx.ModelProto) -> bytes:
    """The model's bytes: equal models give equal bytes.

    Raises:
        ExportError: the model is larger than one file can hold (2 GiB).
    """
    try:
        return claim.model_bytes(model)
    except ValueError as error:
        raise ExportError("the model is larger than one ONNX file can hold (2 GiB).") from error


def set_metadata(model: onnx.ModelProto, key: str, value: str) -> None:
    """Set one entry of the model's metadata, in place; entries stay sorted by key."""
    entries = {entry.key: entry.value for entry in model.metadata_props} | {key: value}
    del model.metadata_props[:]
    for name in sorted(entries):
        model.metadata_props.add(key=name, value=entries[name])


def get_metadata(model: onnx.ModelProto, key: str) -> str | None:
    """One entry of the model's metadata; ``None`` where there is none.

    Raises:
        UnreadableModelError: the key is given twice, so that readers could differ on which one counts.
    """
    values = [entry.value for entry in model.metadata_props if entry.key == key]
    if len(values) > 1:
        raise UnreadableModelError(f"the model's metadata gives {key!r} twice.")
    return values[0] if values else None


def strip_traces(model: onnx.ModelProto) -> None:
    """Remove, in place, the doc strings and metadata in which the exporter notes source paths and stack traces."""
    graph = model.graph
    holders: list[Any] = [model, graph, *graph.node, *graph.initializer]
    holders += [*graph.value_info, *graph.input, *graph.output]
    holders += [*model.functions, *(node for function in model.functions for node in function.node)]
    for holder in holders:
        holder.ClearField("doc_string")
        holder.ClearField("metadata_props")


def _check_opset(model: onnx.ModelProto, opset: int) -> None:
    # The exporter makes some opsets by converting, and where that fails it silently stays at another: so look.
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": opset}:
        raise ExportError(f"the exporter used the operator sets {opsets}, and opset {opset} was asked for.")


def _check(model: onnx.ModelProto, opset: int) -> None:
    _check_opset(model, opset)
    if model.functions or any(tensor.external_data for tensor in model.graph.initializer):
        raise ExportError("the exporter left functions or weights outside the model.")
    names = ([value.name for value in model.graph.input], [value.name for value in model.graph.output])
    if names != ([INPUT_NAME], [OUTPUT_NAME]):
        raise ExportError(f"the exported model has the inputs and outputs {names}, not one of each.")
    ends = (model.graph.input[0], model.graph.output[0])
    if not all(end.type.tensor_type.shape.dim[0].dim_param for end in ends):
        raise ExportError("the exported model has a fixed batch size.", "Use sizes of x.shape in forward, not numbers.")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise ExportError(f"the exported model is not valid ONNX: {_first_line(error)}") from error


def _frozen_copy(classifier: nn.Module) -> nn.Module:
    return copy.deepcopy(classifier).to("cpu", torch.float32).eval().requires_grad_(False)


@contextmanager
def _quiet() -> Iterator[None]:
    # The exporter reports its phases on stdout, which belongs to the command's answer, and warns about its own code.
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _named_user() -> Iterator[None]:
    """Give the exporter a user name and a home where a container's user id has no passwd entry."""
    before = dict(os.environ)
    try:
        getpass.getuser()
    except (KeyError, ImportError, OSError):  # which of them depends on the Python version
        os.environ["USER"] = "nobody"
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.gettempdir()
    cache = Path(tempfile.gettempdir()) / f"torchinductor-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))
    try:
        yield
    finally:
        for name in ("USER", "HOME", "TORCHINDUCTOR_CACHE_DIR"):
            if name in before:
                os.environ[name] = before[name]
            else:
                os.environ.pop(name, None)


def _first_line(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return line if line.endswith(".") else f"{line}."
