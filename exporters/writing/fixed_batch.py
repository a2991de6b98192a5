"""A file that takes just N images at once, all of whose shapes are numbers: what phones' compilers ask for."""

from __future__ import annotations

import onnx

from compressor.core.errors import ExportError, UsageError
from exporters.model_file.structure import Limits

LARGEST_BATCH = Limits().batch
"""What a verifier reads."""


def check_batch(batch: int) -> None:
    """Refuse what cannot be exported.

    Raises:
        UsageError: the batch is not one of 1 to ``LARGEST_BATCH``.
    """
    if not 1 <= batch <= LARGEST_BATCH:
        raise UsageError(f"a fixed batch of {batch} images is not one of 1 to {LARGEST_BATCH:,}.", "Phones take 1.")


def with_fixed_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A copy of an export that takes just ``batch`` images; the shape of every value in it is written down.

    Args:
        model: an export of a dynamic batch, in any precision.
        batch: images at once.

    Raises:
        ExportError: some value's shape does not follow from that of the input.
        UsageError: the batch is not one that can be exported.
    """
    check_batch(batch)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for end in (*copy.graph.input, *copy.graph.output):
        end.type.tensor_type.shape.dim[0].dim_value = batch
    del copy.graph.value_info[:]  # their shapes are those of any batch
    try:
        fixed = onnx.shape_inference.infer_shapes(copy, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise ExportError(f"the shapes do not follow from a batch of {batch}: {str(error)[:300]}") from error
    for name, shape in computed_shapes(fixed).items():
        if shape is None or None in shape:
            raise ExportError(
                f"a fixed batch leaves the shape of the value {name[:60]!r} open.",
                "Export with a dynamic batch, or use sizes of the input in the network's forward.",
            )
    return fixed


def computed_shapes(model: onnx.ModelProto) -> dict[str, tuple[int | None, ...] | None]:
    """The shape that a model writes down for its input and for each computed value: None where it writes none.

    Sizes that are open, or have a name in the place of a number, are None.
    """
    written = {
        value.name: tuple(
            size.dim_value if size.HasField("dim_value") else None for size in value.type.tensor_type.shape.dim
        )
        for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)
        if value.type.tensor_type.HasField("shape")
    }
    names = [value.name for value in model.graph.input]
    names += [name for node in model.graph.node for name in node.output if name]
    return {name: written.get(name) for name in names}
