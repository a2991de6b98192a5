"""INT8: weights and activations in eight bits, one scale a weight channel, written as Q/DQ pairs around operators."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from compressor.errors import UsageError
from exporters.precision._checking import finished, library_call
from exporters.runtime import Images

_BATCH = 64


def to_int8(model: onnx.ModelProto, images: Images) -> onnx.ModelProto:
    """Quantise an exported fp32 model; it is left as it is, and equal inputs give equal bytes.

    Weights are int8 with one scale for each output channel, activations uint8 with one scale for each value, from the
    smallest and largest number seen on the calibration images.

    Args:
        model: an export.
        images: float32 ``[n, C, H, W]`` in [0, 1], n at least 1: natural and attacked ones, see
            :func:`exporters.precision.calibration_images`.

    Returns:
        A model of the same input and output, float32 outside and eight bits inside.

    Raises:
        ExportError: it cannot be quantised.
        UsageError: there are no images.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

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
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        quantised = onnx.load(target)
    return finished(quantised, model, "INT8")
