"""INT8: weights and activations in eight bits, one scale a weight channel, written as Q/DQ pairs around operators."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from compressor.core.errors import UsageError
from exporters.model_file.runtime import Images
from exporters.precision._checking import finished, library_call

Calibration = Literal["minmax", "percentile", "entropy"]

_PERCENTILE = 99.99
_BATCH = 64


@dataclass(frozen=True)
class Int8Settings:
    """How a file is quantised.

    Attributes:
        calibration: which range of an activation gets the 256 levels: ``minmax`` all that was seen, ``percentile`` all
            but one value in ten thousand, ``entropy`` the one that loses least information.
        reduce_range: weights of seven bits, for processors whose eight-bit products overflow (x86 without VNNI).
        left_out: names of operators that stay in float32.
    """

    calibration: Calibration = "minmax"
    reduce_range: bool = False
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [self.calibration, *(["reduce_range"] if self.reduce_range else [])]
        if self.left_out:
            parts.append(f"{len(self.left_out)} operators in fp32")
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """What a claim says of it."""
        return {"calibration": self.calibration, "reduce_range": self.reduce_range, "left_out": list(self.left_out)}


def to_int8(model: onnx.ModelProto, images: Images, settings: Int8Settings | None = None) -> onnx.ModelProto:
    """Quantise an exported fp32 model; it is left as it is, and equal inputs give equal bytes.

    Weights are int8 with one scale for each output channel, activations uint8 with one scale for each value, measured
    on the calibration images. The logits themselves are not rounded: that would cost ties and save nothing.

    Args:
        model: an export.
        images: float32 ``[n, C, H, W]`` in [0, 1], n at least 1: natural and attacked ones, see
            :func:`exporters.precision.calibration_images`.
        settings: the defaults where it is ``None``.

    Returns:
        A model of the same input and output, float32 outside and eight bits inside.

    Raises:
        ExportError: it cannot be quantised.
        UsageError: there are no images.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    settings = settings or Int8Settings()
    methods = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    if len(images) == 0:
        raise UsageError("calibration needs at least one image.")

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            self.batches: Iterator[Images] = (images[i : i + _BATCH] for i in range(0, len(images), _BATCH))
            self.name = name

        def get_next(self) -> dict[str, Images] | None:
            batch = next(self.batches, None)
            return None if batch is None else {self.name: np.ascontiguousarray(batch)}

    with library_call("INT8"), tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            target,
            Reader(model.graph.input[0].name),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=settings.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(settings.left_out),
            calibrate_method=methods[settings.calibration],
            extra_options={"CalibPercentile": _PERCENTILE} if settings.calibration == "percentile" else {},
        )
        quantised = onnx.load(target)
        _leave_the_logits_unrounded(quantised.graph)
    return finished(quantised, model, "INT8")


def _leave_the_logits_unrounded(graph: onnx.GraphProto) -> None:
    """Take the Q/DQ pair off the output: whatever gives it its value then gives the logits."""
    makers = {name: node for node in graph.node for name in node.output}
    logits = graph.output[0].name
    last = makers.get(logits)
    before = makers.get(last.input[0]) if last is not None and last.op_type == "DequantizeLinear" else None
    if last is None or before is None or before.op_type != "QuantizeLinear" or before.input[0] not in makers:
        return
    value = before.input[0]
    for node in graph.node:
        node.input[:] = [logits if name == value else name for name in node.input]
        node.output[:] = [logits if name == value else name for name in node.output]
    kept = [node for node in graph.node if node not in (last, before)]
    read = {name for node in kept for name in node.input}
    weights = [tensor for tensor in graph.initializer if tensor.name in read]
    for field, values in (("node", kept), ("initializer", weights)):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)
