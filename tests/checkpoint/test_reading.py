from __future__ import annotations

import argparse
import json
import os
import pickle
import random
import zipfile

import pytest
import safetensors.torch
import torch

from compressor.checkpoint import read_state
from compressor.core.errors import MissingInputError, UnreadableCheckpointError, UnsafeCheckpointError


class _Code:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.fixture(params=["zip", "legacy", "safetensors"])
def save(request):
    if request.param == "safetensors":
        return safetensors.torch.save_file
    return lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=request.param == "zip")


def test_every_format_gives_the_same_tensors(tmp_path, save, state_of):
    state = state_of()
    save(state, tmp_path / "teacher.bin")
    found = read_state(tmp_path / "teacher.bin").state
    assert set(found) == set(state)
    assert all(torch.equal(found[key], state[key]) for key in state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path, save, dtype):
    weight = torch.tensor([0.5, -1.25, 3.0])
    save({"fc.weight": weight.to(dtype), "bn1.num_batches_tracked": torch.tensor(4)}, tmp_path / "teacher.bin")
    found = read_state(tmp_path / "teacher.bin").state
    assert found["fc.weight"].dtype == torch.float32
    assert torch.equal(found["fc.weight"], weight)
    assert found["bn1.num_batches_tracked"].dtype == torch.int64


def test_the_tensors_outlive_the_file(tmp_path, save):
    save({"fc.weight": torch.ones(1000)}, tmp_path / "teacher.bin")
    found = read_state(tmp_path / "teacher.bin").state
    (tmp_path / "teacher.bin").write_bytes(b"")
    assert torch.equal(found["fc.weight"], torch.ones(1000))


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(MissingInputError, match="no file"):
        read_state(tmp_path / "absent.pt")
    with pytest.raises(MissingInputError, match="is a folder"):
        read_state(tmp_path)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_unreadable(tmp_path, save, state_of, part):
    path = tmp_path / "teacher.bin"
    save(state_of(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(UnreadableCheckpointError, match=r"teacher\.bin"):
        read_state(path)


@pytest.mark.parametrize("start", [b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x02}q\x00", b"\x10" + bytes(7) + b"{"])
def test_random_bytes_are_unreadable(tmp_path, start):
    path = tmp_path / "teacher.pt"
    for seed in range(20):
        path.write_bytes(start + random.Random(seed).randbytes(300))
        # A random byte may happen to ask for code; either way it is an error that says what to do.
        with pytest.raises((UnreadableCheckpointError, UnsafeCheckpointError)) as caught:
            read_state(path)
        assert caught.value.hint


@pytest.mark.parametrize("content", [_Code(), {"state_dict": {"w": torch.ones(1)}, "args": argparse.Namespace(lr=1)},
                                     torch.nn.Linear(2, 2)])  # fmt: skip
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_code_is_refused(tmp_path, content, zipped):
    path = tmp_path / "teacher.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeCheckpointError, match="running code"):
        read_state(path)


def test_the_refusal_names_what_was_asked_for_and_the_way_out(tmp_path):
    torch.save({"args": argparse.Namespace()}, tmp_path / "teacher.pt")
    with pytest.raises(UnsafeCheckpointError, match=r"asks for argparse\.Namespace\.$") as caught:
        read_state(tmp_path / "teacher.pt")
    assert "state_dict()" in caught.value.hint


def test_a_plain_pickle_is_refused(tmp_path):
    (tmp_path / "teacher.pkl").write_bytes(pickle.dumps(_Code()))
    with pytest.raises(UnsafeCheckpointError):
        read_state(tmp_path / "teacher.pkl")


def test_weights_that_are_not_finite_are_refused(tmp_path, save):
    for value in (float("nan"), float("inf")):
        save({"fc.weight": torch.tensor([1.0, value])}, tmp_path / "teacher.bin")
        with pytest.raises(UnreadableCheckpointError, match=r"fc\.weight.*diverged"):
            read_state(tmp_path / "teacher.bin")


def test_integer_weights_are_refused(tmp_path, save):
    save({"fc.weight": torch.ones(2, dtype=torch.int8)}, tmp_path / "teacher.bin")
    with pytest.raises(UnreadableCheckpointError, match="int8"):
        read_state(tmp_path / "teacher.bin")


def test_a_view_that_repeats_itself_cannot_fill_the_memory(tmp_path):
    torch.save({"fc.weight": torch.zeros(1).expand(10**12)}, tmp_path / "teacher.pt")
    with pytest.raises(UnreadableCheckpointError, match="larger than the file"):
        read_state(tmp_path / "teacher.pt")


def test_an_archive_that_unpacks_to_much_more_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "teacher.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(1_000_000))
    with pytest.raises(UnreadableCheckpointError, match="compressed"):
        read_state(tmp_path / "teacher.pt")


def test_a_header_without_bounds_is_refused(tmp_path):
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "teacher.safetensors").write_bytes((1 << 40).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(UnreadableCheckpointError, match="header"):
        read_state(tmp_path / "teacher.safetensors")


def test_the_text_in_a_safetensors_header_is_kept(tmp_path):
    safetensors.torch.save_file({"w": torch.ones(1)}, tmp_path / "a.safetensors", metadata={"author": "x"})
    assert read_state(tmp_path / "a.safetensors").metadata == {"author": "x"}
