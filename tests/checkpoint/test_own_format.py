from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from compressor.checkpoint import load_checkpoint, save_checkpoint
from compressor.core.errors import CompressError, UnreadableCheckpointError, UsageError, WriteError
from compressor.core.types import ModelSpec, Normalization
from compressor.models.classifier import build_classifier
from compressor.system.files import canonical_json

SPECS = [
    ModelSpec("resnet18-0.125", 10),
    ModelSpec("mobilenetv2-0.1", 3, image_size=64, normalization=Normalization((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))),
    ModelSpec("dm-wideresnet-10-1", 100, activation="silu"),
]
METADATA = {"recipe": {"epochs": 3, "lr": 0.1}, "dataset": {"name": "digits"}, "parent": None, "text": 'ä"\n'}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_what_is_written_is_read_back_exactly(tmp_path, spec):
    path = tmp_path / "best.safetensors"
    classifier = build_classifier(spec, seed=1)
    save_checkpoint(path, classifier, METADATA)
    loaded = load_checkpoint(path)
    assert loaded.spec == loaded.classifier.spec == spec
    assert loaded.metadata == METADATA
    assert loaded.open_questions == ()
    assert not loaded.classifier.training
    before, after = classifier.state_dict(), loaded.classifier.state_dict()
    assert set(before) == set(after)
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(classifier.eval()(x), loaded.classifier(x))


def test_equal_work_gives_equal_bytes_wherever_it_is_written(tmp_path):
    paths = [tmp_path / "a.safetensors", tmp_path / "elsewhere" / "b.safetensors"]
    for path, metadata in zip(paths, (METADATA, dict(reversed(METADATA.items()))), strict=True):
        save_checkpoint(path, build_classifier(SPECS[0], seed=1).to(memory_format=torch.channels_last), metadata)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert load_checkpoint(paths[0]).sha256 == load_checkpoint(paths[1]).sha256


def test_the_file_is_plain_safetensors_with_the_network_s_own_names(tmp_path):
    classifier = build_classifier(SPECS[0], seed=1)
    save_checkpoint(tmp_path / "a.safetensors", classifier, {})
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(classifier.network.state_dict())
        assert set(file.metadata()) == {"compress"}


def test_a_nan_in_the_metadata_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(tmp_path / "a.safetensors", build_classifier(SPECS[0], seed=1), {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_write_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write"):
        save_checkpoint(tmp_path / "file" / "a.safetensors", build_classifier(SPECS[0], seed=1), {})


CONTRADICTIONS = [
    ({"model": "resnet18"}, "records the model resnet18-0.125"),
    ({"activation": "silu"}, "records the activation relu"),
    ({"normalization": "half"}, "records the normalization none"),
    ({"image_size": 4}, "below 8"),
]


@pytest.mark.parametrize(("asked", "message"), CONTRADICTIONS)
def test_what_contradicts_the_record_is_refused(tmp_path, asked, message):
    save_checkpoint(tmp_path / "a.safetensors", build_classifier(SPECS[0], seed=1), {})
    with pytest.raises(UsageError, match=message):
        load_checkpoint(tmp_path / "a.safetensors", **asked)


def test_what_agrees_with_the_record_and_another_image_size_are_taken(tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", build_classifier(SPECS[0], seed=1), {})
    loaded = load_checkpoint(
        tmp_path / "a.safetensors", model="resnet18-0.125", normalization="none", activation="relu", image_size=64
    )
    assert loaded.spec.image_size == 64


def header(**changes):
    model = {"name": "resnet18-0.125", "classes": 10, "image_size": 32, "normalization": None, "activation": "relu"}
    return {"schema": "compress.checkpoint/1", "model": model | changes.pop("model", {}), "metadata": {}} | changes


DAMAGED = [
    "", "{", "[]", "1", "[" * 100_000,
    *map(json.dumps, [
        header(schema="compress.checkpoint/2"), header(metadata=[]), header() | {"model": None},
        header(model={"name": 3}), header(model={"activation": "gelu"}), header(model={"activation": ["relu"]}),
        header(model={"classes": "10"}), header(model={"classes": True}), header(model={"classes": 10**9}),
        header(model={"image_size": -1}), header(model={"normalization": 3}),
        header(model={"normalization": {"mean": [0, 0, 0], "std": [1, 1, 0]}}),
        header(model={"normalization": {"mean": [0, 0, "x"], "std": [1, 1, 1]}}),
        header(model={"normalization": {"mean": [0, 0, 0, "x"], "std": [1, 1, 1]}}),
    ]),
]  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_description_is_unreadable(tmp_path, state_of, text):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(state_of("resnet18-0.125"), path, metadata={"compress": text})
    with pytest.raises(UnreadableCheckpointError, match=r"a\.safetensors"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["resnet18", "nonsense", "wideresnet-34-10", "resnet18-0.125\x00"])
def test_a_description_of_another_network_is_an_error_of_ours(tmp_path, state_of, name):
    path = tmp_path / "a.safetensors"
    text = canonical_json(header(model={"name": name}))
    safetensors.torch.save_file(state_of("resnet18-0.125"), path, metadata={"compress": text})
    with pytest.raises(CompressError):
        load_checkpoint(path)


def test_a_header_of_any_length_is_ours(tmp_path):
    # Its length is the file's first number, and headers are padded to 8 bytes: 32 lengths give all first bytes.
    classifier, path = build_classifier(SPECS[0], seed=1), tmp_path / "a.safetensors"
    firsts = set()
    for padding in range(0, 256, 8):
        save_checkpoint(path, classifier, {"padding": "x" * padding})
        firsts.add(path.read_bytes()[0])
        assert load_checkpoint(path).metadata["padding"] == "x" * padding
    assert 0x80 in firsts
    assert len(firsts) == 32
