from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from compressor.core.errors import MissingDataError, UnreadableDataError, UsageError, WriteError
from compressor.data.sources.cifar10 import DATASET

NAMES = ["plane", "car"]


class OldDtype:
    """The way NumPy 1.x wrote a dtype on Python 2: with an integer for ``align``."""

    def __reduce__(self):
        return np.dtype, ("u1", 0, 1)


class OldArray:
    """The way the archive's arrays were pickled."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __reduce__(self):
        state = (1, self.array.shape, OldDtype(), False, self.array.tobytes())
        return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state


def pixels(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 3072), dtype=np.uint8)


def write(path: Path, content: dict) -> str:
    data = pickle.dumps(content, protocol=2)
    path.write_bytes(data)
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny archive in the real format; its own checksums stand where torchvision keeps the real ones."""
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "data" / CIFAR10.base_folder
    folder.mkdir(parents=True)
    train = [
        [name, write(folder / name, {"data": OldArray(pixels(4, seed)), "labels": [seed % 2] * 4})]
        for seed, name in enumerate(["data_batch_1", "data_batch_2"])
    ]
    test = [["test_batch", write(folder / "test_batch", {"data": OldArray(pixels(3, 9)), "labels": [1, 0, 1]})]]
    meta = {"filename": "batches.meta", "key": "label_names"}
    meta["md5"] = write(folder / "batches.meta", {"label_names": NAMES})
    for attribute, value in {"train_list": train, "test_list": test, "meta": meta}.items():
        monkeypatch.setattr(CIFAR10, attribute, value)
    return tmp_path / "data"


def open_cifar(data_dir: Path | None, *, argument: str = "", download: bool = False, image_size: int = 32):
    return DATASET(argument, data_dir=data_dir, download=download, image_size=image_size)


def pack(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace the folder by the archive that would be downloaded."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(data_dir / CIFAR10.base_folder, CIFAR10.base_folder)
    for path in (data_dir / CIFAR10.base_folder).iterdir():
        path.unlink()
    (data_dir / CIFAR10.base_folder).rmdir()
    archive = data_dir / CIFAR10.filename
    archive.write_bytes(buffer.getvalue())
    monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(buffer.getvalue(), usedforsecurity=False).hexdigest())
    return archive


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """A web server on this machine for the files of ``tmp_path``: gives the address of a name."""
    handler = partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield lambda name: f"http://127.0.0.1:{http.server_port}/{name}"
        http.shutdown()
        thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def test_pictures_labels_and_names(data_dir: Path) -> None:
    dataset = open_cifar(data_dir)
    assert (dataset.name, dataset.class_names, dataset.image_size) == ("cifar10", tuple(NAMES), 32)
    train, test = dataset.load("train"), dataset.load("test")
    assert np.array_equal(train.images, np.concatenate([pixels(4, 0), pixels(4, 1)]).reshape(8, 3, 32, 32))
    assert train.labels.tolist() == [0] * 4 + [1] * 4
    assert np.array_equal(test.images, pixels(3, 9).reshape(3, 3, 32, 32))
    assert test.labels.tolist() == [1, 0, 1]
    assert train.images.flags.c_contiguous
    assert train.labels.dtype == np.int64


def test_there_is_no_validation_split(data_dir: Path) -> None:
    dataset = open_cifar(data_dir)
    assert not dataset.has("validation")
    with pytest.raises(UnreadableDataError, match="cifar10 has no validation split"):
        dataset.load("validation")


def test_the_archives_own_folder_will_do(data_dir: Path) -> None:
    assert len(open_cifar(data_dir / CIFAR10.base_folder).load("test")) == 3


def test_other_sizes_are_resampled(data_dir: Path) -> None:
    images = open_cifar(data_dir, image_size=48).load("test").images
    assert images.shape == (3, 3, 48, 48)
    originals = pixels(3, 9).reshape(3, 3, 32, 32)
    assert np.abs(images.mean((2, 3)) - originals.mean((2, 3))).max() < 3
    assert np.array_equal(open_cifar(data_dir, image_size=48).load("test").images, images)


def test_absent_names_both_ways_out(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="cifar10 is not in") as caught:
        open_cifar(tmp_path)
    assert "--download" in caught.value.hint
    assert "--data-dir DIR" in caught.value.hint


def test_a_path_that_the_system_refuses(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"cifar10 cannot be read in .*: file name too long"):
        open_cifar(tmp_path / ("x" * 300))


def test_the_default_folder_is_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingDataError, match=r"cifar10 is not in data\."):
        open_cifar(None)


def test_an_argument_is_refused(data_dir: Path) -> None:
    with pytest.raises(UsageError, match="takes no argument"):
        open_cifar(data_dir, argument="x")


@pytest.mark.parametrize("name", ["data_batch_2", "test_batch", "batches.meta"])
def test_one_flipped_byte_is_named_and_never_unpickled(
    data_dir: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = data_dir / CIFAR10.base_folder / name
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)

    def refuse(*args, **kwargs):
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    with pytest.raises(UnreadableDataError, match=f"{name} of cifar10 is damaged: its checksum is wrong"):
        open_cifar(data_dir)


def test_a_missing_file_is_named(data_dir: Path) -> None:
    (data_dir / CIFAR10.base_folder / "test_batch").unlink()
    with pytest.raises(UnreadableDataError, match="test_batch of cifar10 is missing"):
        open_cifar(data_dir)


def test_an_archive_that_is_there_is_unpacked(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(data_dir, monkeypatch)
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: pytest.fail("went to the network"))
    assert len(open_cifar(data_dir).load("train")) == 8
    assert capsys.readouterr().out == ""


def test_a_damaged_archive(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(data_dir, monkeypatch)
    archive.write_bytes(archive.read_bytes()[:-1])
    with pytest.raises(UnreadableDataError, match=r"archive .* is damaged"):
        open_cifar(data_dir)


def test_download_fetches_verifies_and_unpacks(
    data_dir: Path, server: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = pack(data_dir, monkeypatch)
    archive.rename(data_dir.parent / "elsewhere.tar.gz")
    monkeypatch.setattr(CIFAR10, "url", server("elsewhere.tar.gz"))
    assert len(open_cifar(data_dir, download=True).load("train")) == 8


def test_a_failed_download(tmp_path: Path, server: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR10, "url", server("absent.tar.gz"))
    with pytest.raises(MissingDataError, match=r"could not be fetched: .*[^.]\.$"):
        open_cifar(tmp_path / "data", download=True)


def test_a_download_of_the_wrong_bytes(
    tmp_path: Path, server: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrong.tar.gz").write_bytes(b"x")
    monkeypatch.setattr(CIFAR10, "url", server("wrong.tar.gz"))
    with pytest.raises(MissingDataError, match="could not be fetched"):
        open_cifar(tmp_path / "data", download=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(WriteError, match="cannot write cifar10"):
        open_cifar(tmp_path / "locked/data", download=True)


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError, match="cannot write cifar10"):
        open_cifar(tmp_path / "file", download=True)
