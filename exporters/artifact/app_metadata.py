"""What an app must know to use a file, in the file's metadata: the classes, and how a picture becomes its input.

Plain JSON, so that a phone reads it with what it has; the model digest of a claim covers it, like all metadata.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import onnx

from compressor.core.errors import UnreadableModelError, UsageError
from compressor.system.files import canonical_json
from exporters.writing.onnx import INPUT_NAME, OUTPUT_NAME, get_metadata, set_metadata

CLASSES_KEY = "compress.classes"
PREPROCESSING_KEY = "compress.preprocessing"

MAX_NAME = 200
"""Characters in a class name: what a claim allows."""
MAX_CHARACTERS = 1 << 19
"""Characters in one entry: half of what a claim, which holds the names too, may have."""

_MAX_FIELDS = 32


class AppMetadata(NamedTuple):
    """What a file's metadata tells an app; ``None`` where it does not say.

    Attributes:
        class_names: in the order of the logits.
        preprocessing: field to a number, a text or a list of numbers, as :func:`add_app_metadata` writes them.
    """

    class_names: tuple[str, ...] | None
    preprocessing: dict[str, Any] | None


def add_app_metadata(model: onnx.ModelProto, class_names: Sequence[str], image_size: int) -> None:
    """Write class names and preprocessing into an export's metadata, in place.

    Args:
        model: takes RGB images ``[B, 3, H, W]`` in [0, 1], and normalises them itself.
        class_names: in the order of the logits; each printable, of at most ``MAX_NAME`` characters.
        image_size: H and W.

    Raises:
        UsageError: a class name is no plain text, or they are too long together.
    """
    for name in class_names:
        if not _is_name(name):
            raise UsageError(
                f"the class name {_shortened(name)} cannot be written into a file.",
                f"Class names are printable text of at most {MAX_NAME} characters: rename its folder.",
            )
    classes = canonical_json(list(class_names))
    if len(classes) > MAX_CHARACTERS:
        raise UsageError(f"the class names together are longer than {MAX_CHARACTERS:,} characters.", "Shorten them.")
    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    preprocessing = {
        "batch": batch.dim_value if batch.HasField("dim_value") else "any",
        "channel_order": "RGB",
        "height": image_size,
        "input": INPUT_NAME,
        "layout": "NCHW",
        "normalization": "inside the file",
        "output": OUTPUT_NAME,
        "range": [0, 1],
        "resize": "shorter side to the size (bilinear), then centre crop",
        "type": "float32",
        "width": image_size,
    }
    set_metadata(model, CLASSES_KEY, classes)
    set_metadata(model, PREPROCESSING_KEY, canonical_json(preprocessing))


def read_app_metadata(model: onnx.ModelProto) -> AppMetadata:
    """What the metadata of a file of unknown origin says.

    Raises:
        UnreadableModelError: an entry is there and is not what :func:`add_app_metadata` writes, or is there twice.
    """
    names = _read(model, CLASSES_KEY, _are_names)
    return AppMetadata(None if names is None else tuple(names), _read(model, PREPROCESSING_KEY, _is_preprocessing))


def _read(model: onnx.ModelProto, key: str, is_valid: Callable[[Any], bool]) -> Any:
    text = get_metadata(model, key)
    if text is None:
        return None
    try:
        value = json.loads(text) if len(text) <= MAX_CHARACTERS else None
    except (ValueError, RecursionError):
        value = None
    if not is_valid(value):
        raise UnreadableModelError(f"the model's metadata {key!r} is not what this project writes there.")
    return value


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_name, value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MAX_NAME and value.isprintable()


def _is_preprocessing(value: Any) -> bool:
    fields = value.items() if isinstance(value, dict) and len(value) <= _MAX_FIELDS else [(None, None)]
    return all(_is_name(name) and (_is_name(entry) or _is_number(entry) or _is_range(entry)) for name, entry in fields)


def _is_range(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9  # false for NaN


def _shortened(name: str) -> str:
    return repr(name if len(name) <= 40 else f"{name[:40]}...")
