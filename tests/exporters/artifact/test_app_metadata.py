"""What a file's metadata tells an app, and what is refused there."""

from __future__ import annotations

import json

import onnx
import pytest
from onnx import TensorProto, helper

from compressor.core.errors import UnreadableModelError, UsageError
from exporters.artifact.app_metadata import (
    CLASSES_KEY,
    MAX_CHARACTERS,
    PREPROCESSING_KEY,
    AppMetadata,
    add_app_metadata,
    read_app_metadata,
)
from exporters.claim.claim import model_digest
from exporters.writing.onnx import get_metadata, set_metadata


@pytest.fixture
def model() -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 8, 8]) for name in ("input", "logits")]
    return helper.make_model(
        helper.make_graph([helper.make_node("Relu", ["input"], ["logits"])], "g", *([e] for e in ends))
    )


def test_an_app_reads_plain_json_without_our_code(model: onnx.ModelProto) -> None:
    add_app_metadata(model, ["kočka", "dog"], 8)
    entries = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert entries[CLASSES_KEY] == ["kočka", "dog"]
    said = entries[PREPROCESSING_KEY]
    assert (said["input"], said["output"], said["batch"]) == ("input", "logits", "any")
    assert (said["height"], said["width"], said["layout"], said["channel_order"]) == (8, 8, "NCHW", "RGB")
    assert (said["range"], said["type"], said["normalization"]) == ([0, 1], "float32", "inside the file")
    assert read_app_metadata(model) == AppMetadata(("kočka", "dog"), said)


def test_the_model_digest_covers_them(model: onnx.ModelProto) -> None:
    add_app_metadata(model, ["cat", "dog"], 8)
    before = model_digest(model)
    set_metadata(model, CLASSES_KEY, '["dog","cat"]')
    assert model_digest(model) != before


def test_a_fixed_batch_is_said(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    add_app_metadata(model, ["cat", "dog"], 8)
    notes = read_app_metadata(model)
    assert notes.preprocessing is not None
    assert notes.preprocessing["batch"] == 4


@pytest.mark.parametrize("name", ["cat\x1b[2J", "line\nbreak", "\u202etac", "\udcff", "x" * 201])
def test_names_that_are_no_plain_text_are_not_written(name: str, model: onnx.ModelProto) -> None:
    with pytest.raises(UsageError, match="class name") as caught:
        add_app_metadata(model, ["dog", name], 8)
    assert caught.value.message.isprintable()
    assert not model.metadata_props


def test_names_without_end_are_not_written(model: onnx.ModelProto) -> None:
    with pytest.raises(UsageError, match="together"):
        add_app_metadata(model, ["x" * 200] * (MAX_CHARACTERS // 200), 8)


def test_a_file_that_says_nothing_is_no_error(model: onnx.ModelProto) -> None:
    assert read_app_metadata(model) == AppMetadata(None, None)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (CLASSES_KEY, "not json"),
        (CLASSES_KEY, '{"0":"cat"}'),
        (CLASSES_KEY, '["cat",1]'),
        (CLASSES_KEY, '["\\u001b[2J"]'),
        (CLASSES_KEY, "[" * 100_000),
        (CLASSES_KEY, json.dumps(["x" * 100] * 6000)),
        (PREPROCESSING_KEY, "[]"),
        (PREPROCESSING_KEY, '{"range":[0,NaN]}'),
        (PREPROCESSING_KEY, '{"range":[0,[1]]}'),
        (PREPROCESSING_KEY, '{"size":1e999}'),
        (PREPROCESSING_KEY, json.dumps({str(i): i for i in range(33)})),
    ],
)
def test_anything_else_is_unreadable(key: str, value: str, model: onnx.ModelProto) -> None:
    set_metadata(model, key, value)
    with pytest.raises(UnreadableModelError, match=key):
        read_app_metadata(model)
    assert get_metadata(model, key) == value
