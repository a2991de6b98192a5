"""Generated images: what is accepted, what is refused and why, and that no file is ever in memory as a whole."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compressor.core.errors import Interrupted, MissingInputError, UnreadableDataError
from compressor.data import extra_data
from compressor.data.datasets import watch_decoding
from compressor.data.extra_data import ExtraData, check_extra_data, open_extra_data
from compressor.system import npz
from compressor.training.teaching.caches import list_entries, remove_entries

SIDE, N, CLASSES = 8, 50, 10
IMAGES = np.random.default_rng(0).integers(0, 256, (N, SIDE, SIDE, 3), dtype=np.uint8)
LABELS = np.arange(N, dtype=np.int64) % CLASSES


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra_data, "_BLOCK_BYTES", 7 * SIDE * SIDE * 3)
    monkeypatch.setattr(extra_data, "_LABELS_AT_ONCE", 11)


def save(path: Path, *, packed: bool = False, **arrays: np.ndarray) -> Path:
    (np.savez_compressed if packed else np.savez)(path, **arrays)
    return path


def saved(tmp_path: Path) -> Path:
    return save(tmp_path / "extra.npz", image=IMAGES, label=LABELS)


def opened(path: Path, *, needs_labels: bool = True, size: int = SIDE) -> ExtraData:
    return open_extra_data(path, image_size=size, classes=CLASSES, needs_labels=needs_labels)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# ---- what is accepted


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int32, ">i4"])
def test_the_arrays_come_back(tmp_path: Path, packed: bool, kind: type[np.number]) -> None:
    path = save(tmp_path / "extra.npz", packed=packed, image=IMAGES, label=LABELS.astype(kind))
    extra = opened(path)
    assert len(extra) == N
    assert extra.images.dtype == np.uint8
    assert np.array_equal(extra.images, IMAGES.transpose(0, 3, 1, 2))
    assert extra.labels is not None
    assert (extra.labels.tolist(), extra.labels.dtype) == (LABELS.tolist(), np.uint8)
    assert extra.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_other_arrays_do_not_matter_and_labels_may_be_missing(tmp_path: Path) -> None:
    path = save(tmp_path / "extra.npz", image=IMAGES, name=np.array(["a", "b"]))
    assert opened(path, needs_labels=False).labels is None


def test_every_prefix_of_a_file_is_refused_or_whole(tmp_path: Path) -> None:
    whole = saved(tmp_path).read_bytes()
    path = tmp_path / "cut.npz"
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(UnreadableDataError):
            opened(path)


def test_the_pictures_stay_on_the_disk_and_pieces_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n, block = 60_000, 1 << 20
    images = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, SIDE, SIDE, 3))
    path = save(tmp_path / "extra.npz", packed=True, image=images, label=np.zeros(n, np.int64))
    monkeypatch.setattr(extra_data, "_BLOCK_BYTES", block)
    tracemalloc.start()
    try:
        extra = opened(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert images.nbytes > 10 * block
    assert peak < 6 * block, "a piece, its transposed copy, and what unpacks it"
    assert isinstance(extra.images.base, np.memmap) or isinstance(extra.images, np.memmap)
    assert np.array_equal(extra.images[::997, 1, 2, 3], np.arange(n, dtype=np.uint8)[::997])


# ---- the cache


def test_it_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(saved(tmp_path))
    monkeypatch.setattr(extra_data, "_blocks", lambda *_: pytest.fail("unpacked again"))
    assert np.array_equal(opened(tmp_path / "extra.npz").images, first.images)


def test_a_changed_file_has_a_cache_of_its_own(tmp_path: Path) -> None:
    first = opened(saved(tmp_path))
    changed = IMAGES.copy()
    changed[3, 4, 5, 1] ^= 1
    status = (tmp_path / "extra.npz").stat()
    save(tmp_path / "extra.npz", image=changed, label=LABELS)
    os.utime(tmp_path / "extra.npz", (status.st_atime, status.st_mtime))
    second = opened(tmp_path / "extra.npz")
    assert first.sha256 != second.sha256
    assert np.array_equal(first.images, IMAGES.transpose(0, 3, 1, 2))
    assert np.array_equal(second.images, changed.transpose(0, 3, 1, 2))
    assert len(list_entries()) == 2


def test_damage_to_the_cache_is_mended(tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = saved(tmp_path)
    opened(path)
    (kept,) = files(cache)
    kept.write_bytes(kept.read_bytes()[:-1])
    assert np.array_equal(opened(path).images, IMAGES.transpose(0, 3, 1, 2))
    assert "cannot be used" in caplog.text


def test_compress_cache_lists_and_removes_it(tmp_path: Path, cache: Path) -> None:
    opened(saved(tmp_path))
    (entry,) = list_entries()
    assert (entry.kind, entry.holds, entry.fault) == ("decoded", f"extra: {N} pictures of {SIDE} pixels", None)
    remove_entries([entry])
    assert files(cache) == []


def test_without_a_cache_a_temporary_file_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    extra = opened(saved(tmp_path))
    assert np.array_equal(extra.images, IMAGES.transpose(0, 3, 1, 2))
    assert isinstance(extra.images, np.memmap)
    assert "not kept for the next run" in caplog.text
    assert "temporary" in caplog.text
    assert files(tmp_path / "temporary") == [], "the file has no name"


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("at", [1, 9, 12])
def test_a_stop_leaves_nothing_half_written(tmp_path: Path, cache: Path, at: int) -> None:
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if len(told) == at:
            raise Interrupted(2)

    path = saved(tmp_path)
    with watch_decoding(stop), pytest.raises(Interrupted):
        opened(path)
    assert files(cache) == []
    assert np.array_equal(opened(path).images, IMAGES.transpose(0, 3, 1, 2))
    assert all(0 < done <= total == N for done, total in told)


@pytest.mark.usefixtures("small_blocks")
def test_a_file_that_changes_under_the_reader_is_not_kept(tmp_path: Path, cache: Path) -> None:
    path = saved(tmp_path)
    with watch_decoding(lambda *_: os.utime(path, (1, 1))), pytest.raises(UnreadableDataError, match="was changed"):
        opened(path)
    assert files(cache) == []


# ---- what is refused


def refused(path: Path, says: str, *, by_headers: bool = True, needs_labels: bool = True) -> None:
    """Refuse in one sentence that names the file and says why, with a way out, and leave nothing in the cache."""
    with pytest.raises(UnreadableDataError) as caught:
        opened(path, needs_labels=needs_labels)
    assert says in caught.value.message
    assert path.name in caught.value.message
    assert "numpy.savez" in caught.value.hint
    assert caught.value.exit_code == 2
    assert not files(path.parent / "cache")
    if by_headers:
        with pytest.raises(UnreadableDataError, match="cannot be used"):
            check_extra_data(path, image_size=SIDE, needs_labels=needs_labels)
    else:
        check_extra_data(path, image_size=SIDE, needs_labels=needs_labels)


WRONG: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "no images": ({"data": IMAGES, "label": LABELS}, "no array `image`, only data, label"),
    "no labels": ({"image": IMAGES}, "no array `label`, and the method needs labels"),
    "floats": ({"image": IMAGES / np.float32(255), "label": LABELS}, "float32 [50, 8, 8, 3], not uint8 [N, 8, 8, 3]"),
    "channels first": ({"image": IMAGES.transpose(0, 3, 1, 2).copy(), "label": LABELS}, "uint8 [50, 3, 8, 8]"),
    "grey": ({"image": IMAGES[..., :1].copy(), "label": LABELS}, "uint8 [50, 8, 8, 1]"),
    "another size": ({"image": IMAGES[:, :4, :4].copy(), "label": LABELS}, "uint8 [50, 4, 4, 3]"),
    "flat": ({"image": IMAGES.reshape(N, -1), "label": LABELS}, "uint8 [50, 192]"),
    "scalar": ({"image": np.uint8(3), "label": LABELS}, "uint8 []"),
    "empty": ({"image": IMAGES[:0], "label": LABELS[:0]}, "holds no images"),
    "Fortran": ({"image": np.asfortranarray(IMAGES), "label": LABELS}, "Fortran order"),
    "one-hot": ({"image": IMAGES, "label": np.eye(CLASSES, dtype=int)[LABELS]}, "[50, 10], not integers [50]"),
    "float labels": ({"image": IMAGES, "label": LABELS / 1.0}, "float64 [50], not integers"),
    "too few labels": ({"image": IMAGES, "label": LABELS[:-1]}, "int64 [49], not integers [50]"),
    "objects": ({"image": IMAGES, "label": LABELS.astype(object)}, "Python objects"),
    "image objects": ({"image": IMAGES[:2].astype(object), "label": LABELS}, "Python objects"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_arrays_are_refused_by_their_headers(case: str, tmp_path: Path) -> None:
    arrays, says = WRONG[case]
    refused(save(tmp_path / "extra.npz", **arrays), says)


@pytest.mark.parametrize(
    ("label", "says"), [(10, "is 10, and the 10 classes"), (-1, "is -1, and"), (2**40, "is 10995")]
)
def test_labels_beyond_the_classes_are_refused(label: int, says: str, tmp_path: Path) -> None:
    labels = LABELS.copy()
    labels[-1] = label
    refused(save(tmp_path / "extra.npz", image=IMAGES, label=labels), says, by_headers=False)


def test_wrong_labels_are_refused_also_where_none_are_needed(tmp_path: Path) -> None:
    path = save(tmp_path / "extra.npz", image=IMAGES, label=LABELS + 1)
    refused(path, "is 10", by_headers=False, needs_labels=False)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"P", b"nonsense" * 50, pickle.dumps({"image": 1})):
        (tmp_path / "extra.npz").write_bytes(content)
        refused(tmp_path / "extra.npz", "not an .npz archive")
    np.save(tmp_path / "array.npy", IMAGES)
    refused(tmp_path / "array.npy", "not an .npz archive")


def test_what_is_absent_is_missing(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.npz"):
        with pytest.raises(MissingInputError, match="is not a file"):
            opened(path)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("packed", [False, True])
def test_a_flipped_byte_in_the_pictures_is_found(packed: bool, tmp_path: Path, cache: Path) -> None:
    path = save(tmp_path / "extra.npz", packed=packed, image=IMAGES, label=LABELS)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(bytes(data))
    with pytest.raises(UnreadableDataError, match="damaged or cut short"):
        opened(path)
    assert files(cache) == []


def write_archive(path: Path, image: bytes, *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """An archive whose ``image.npy`` holds these bytes."""
    labels = io.BytesIO()
    np.save(labels, LABELS)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("image.npy", image)
        archive.writestr("label.npy", labels.getvalue())
    return path


def header(shape: str, *, version: bytes = b"\x01\x00", kind: str = "|u1") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version[0] == 1 else 4, "little") + text


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (header("(60, 8, 8, 3)"), "should take 11,5"),
        (header("(1000000, 8, 8, 3)"), "not the shape that its header says"),
        (header("(-1, 8, 8, 3)"), "not the shape that its header says"),
        (header("(1, 8, 8, 3)") + b"\0" * 10**6, "should take"),
        (header("(" + "9" * 4000 + ", 8, 8, 3)"), "not the shape"),
        (header("(" + "1, " * 3000 + ")") + b"\0", "uint8 [1, 1, 1"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 10**6, "header of its array `image` is damaged"),
        (header("(2, 8, 8, 3)", version=b"\x09\x00"), "unknown version"),
        (header("(" * 3000), "header of its array `image` is damaged"),
        (header("(2, 8, 8, 3)", kind="nonsense"), "header of its array `image` is damaged"),
        (b"", "header of its array `image` is damaged"),
        (pickle.dumps([1, 2]), "header of its array `image` is damaged"),
    ],
    ids=[
        "short",
        "far too short",
        "negative",
        "long",
        "huge",
        "deep",
        "long header",
        "version",
        "nested",
        "dtype",
        "nothing",
        "pickle",
    ],
)
def test_headers_that_lie_are_refused_before_anything_is_unpacked(image: bytes, says: str, tmp_path: Path) -> None:
    refused(write_archive(tmp_path / "extra.npz", image), says)


def test_a_second_version_header_is_read(tmp_path: Path) -> None:
    content = header("(50, 8, 8, 3)", version=b"\x02\x00") + IMAGES.tobytes()
    extra = opened(write_archive(tmp_path / "extra.npz", content))
    assert np.array_equal(extra.images, IMAGES.transpose(0, 3, 1, 2))


def test_methods_that_unpack_without_bound_are_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "extra.npz", header("(50, 8, 8, 3)") + IMAGES.tobytes(), method=zipfile.ZIP_BZIP2)
    refused(path, "packed in a way that NumPy does not write")


def test_sizes_that_no_archive_can_hold_are_refused(tmp_path: Path) -> None:
    start = header("(1000000, 8, 8, 3)")
    path = write_archive(tmp_path / "extra.npz", start, method=zipfile.ZIP_STORED)
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("image.npy")
        info.file_size = len(start) + 192 * 10**6
        with pytest.raises(npz.NpzError, match="can unpack to"):
            npz.stored_array(archive, "image")


def test_encrypted_arrays_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with zipfile.ZipFile(path) as archive:
        archive.getinfo("image.npy").flag_bits |= 1
        with pytest.raises(npz.NpzError, match="encrypted"):
            npz.stored_array(archive, "image")


def test_an_error_of_the_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    read: Callable[..., bytes] = fail
    path = saved(tmp_path)
    monkeypatch.setattr(zipfile.ZipExtFile, "read", read)
    refused(path, "Input/output error")
