"""Generated images that training mixes in: the ``image`` and ``label`` arrays of an ``.npz`` file.

The public sets hold a million to 50 million pictures, more than memory holds: they are unpacked once, piece by piece,
into the cache of decoded pictures, and read from there through a memory map.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from compressor.core.errors import MissingInputError, UnreadableDataError
from compressor.data.sources._cache import mapped_images
from compressor.data.sources._decoding import tell_decoded
from compressor.data.sources._pictures import Pixels, printable_path
from compressor.system.npz import NpzError, StoredArray, array_names, open_npz, read_pieces, stored_array

Labels = np.ndarray[Any, np.dtype[np.unsignedinteger[Any]]]

IMAGES, LABELS = "image", "label"

_BLOCK_BYTES = 1 << 25
_LABELS_AT_ONCE = 1 << 20
_LAYOUT = (
    "It needs `image`, uint8 [N, {size}, {size}, 3], and `label`, integers [N] from 0 to below the number of classes, "
    "as numpy.savez writes them."
)


@dataclass(frozen=True, eq=False)
class ExtraData:
    """Generated images.

    Attributes:
        images: uint8 ``[N, 3, S, S]``, memory-mapped.
        labels: ``[N]``, in the smallest unsigned type that holds the classes; ``None`` where there are none.
        sha256: of the bytes of the ``.npz`` file.
    """

    images: Pixels
    labels: Labels | None
    sha256: str

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class _Layout:
    images: StoredArray
    labels: StoredArray | None


def check_extra_data(path: Path, *, image_size: int, needs_labels: bool) -> None:
    """Refuse a file that cannot be used, as far as its headers tell; see ``open_extra_data``."""
    with _opened(path, image_size) as (_, archive):
        _layout(archive, image_size, needs_labels=needs_labels)


def open_extra_data(path: Path, *, image_size: int, classes: int, needs_labels: bool) -> ExtraData:
    """Open generated images, unpacking them into the cache where they are not there yet.

    Args:
        path: the ``.npz`` file.
        image_size: the side that its pictures must have, in pixels.
        classes: how many there are; labels are from 0 to ``classes - 1``.
        needs_labels: whether a file without labels is refused.

    Raises:
        MissingInputError: it is not there.
        UnreadableDataError: it is damaged, or its arrays are not the ones described above.
        WriteError: neither the cache nor the folder for temporary files can hold the pictures.
    """
    with _opened(path, image_size) as (file, archive):
        layout = _layout(archive, image_size, needs_labels=needs_labels)
        labels = None if layout.labels is None else _labels(archive, layout.labels, classes)
        total = layout.images.shape[0]
        before = _stamp(file)
        sha256 = _sha256(file, total)

        def blocks() -> Iterator[Pixels]:
            yield from _blocks(archive, layout.images)
            if _stamp(file) != before:  # before the cache takes them: another file's pictures under this one's digest
                raise NpzError("it was changed while it was read")

        name = f"extra-{sha256[:32]}-{image_size}.npy"
        return ExtraData(mapped_images(name, (total, 3, image_size, image_size), blocks), labels, sha256)


@contextmanager
def _opened(path: Path, image_size: int) -> Iterator[tuple[BinaryIO, zipfile.ZipFile]]:
    if not path.is_file():
        raise MissingInputError(
            f"the extra data {printable_path(path)} is not a file.",
            "--extra-data takes an .npz file of images and labels.",
        )
    try:
        with path.open("rb") as file, open_npz(file) as archive:
            yield file, archive
    except NpzError as error:
        raise UnreadableDataError(
            f"the extra data {printable_path(path)} cannot be used: {error}.", _LAYOUT.format(size=image_size)
        ) from error
    except OSError as error:
        raise MissingInputError(
            f"the extra data {printable_path(path)} cannot be read: {(error.strerror or str(error)).lower()}.",
            "Check the file and who may read it.",
        ) from error


def _layout(archive: zipfile.ZipFile, image_size: int, *, needs_labels: bool) -> _Layout:
    images = stored_array(archive, IMAGES)
    wanted = (image_size, image_size, 3)
    if images.shape[:1] == (0,):
        raise NpzError(f"its array `{IMAGES}` holds no images")
    if images.dtype != np.uint8 or images.shape[1:] != wanted:
        raise NpzError(f"its array `{IMAGES}` is {images}, not uint8 [N, {', '.join(map(str, wanted))}]")
    if LABELS not in array_names(archive):
        if needs_labels:
            raise NpzError(f"it has no array `{LABELS}`, and the method needs labels (rslad does not)")
        return _Layout(images, None)
    labels = stored_array(archive, LABELS)
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise NpzError(f"its array `{LABELS}` is {labels}, not integers [{images.shape[0]}], one for each image")
    return _Layout(images, labels)


def _labels(archive: zipfile.ZipFile, array: StoredArray, classes: int) -> Labels:
    labels: Labels = np.empty(array.shape[0], np.min_scalar_type(classes - 1))
    done = 0
    for piece in read_pieces(archive, array, _LABELS_AT_ONCE):
        low, high = int(piece.min()), int(piece.max())
        if low < 0 or high >= classes:
            wrong = low if low < 0 else high
            raise NpzError(f"one of its labels is {wrong}, and the {classes} classes are 0 to {classes - 1}")
        labels[done : done + len(piece)] = piece
        done += len(piece)
    return labels


def _blocks(archive: zipfile.ZipFile, array: StoredArray) -> Iterator[Pixels]:
    done, total = 0, array.shape[0]
    for piece in read_pieces(archive, array, max(1, _BLOCK_BYTES // array.row_bytes)):
        yield np.ascontiguousarray(piece.transpose(0, 3, 1, 2))
        done += len(piece)
        tell_decoded(done, total)


def _sha256(file: BinaryIO, total: int) -> str:
    """The digest of the whole file; told as progress too, in pictures, since that takes minutes for the largest."""
    size, done, digest = os.fstat(file.fileno()).st_size, 0, hashlib.sha256()
    file.seek(0)
    while piece := file.read(_BLOCK_BYTES):
        digest.update(piece)
        done += len(piece)
        tell_decoded(total * done // max(size, done), total)
    return digest.hexdigest()


def _stamp(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns
