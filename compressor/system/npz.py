"""Reads arrays of an ``.npz`` file piece by piece; what the file says of itself is checked before it is believed."""

from __future__ import annotations

import io
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

# NumPy writes these two. bzip2 and LZMA would be unpacked in pieces of any size.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_HEADER_BYTES = 1 << 14
# Deflate packs at most 258 bytes into 2 bits; the rest is for tiny files.
_LARGEST_RATIO, _SLACK_BYTES = 1032, 1024
_ZIP_START = b"PK"
_SHOWN = 80
_DAMAGED = "it is damaged or cut short"


class NpzError(Exception):
    """Why a file is not used, as a clause that follows "it cannot be used: "; the caller names the file."""


@dataclass(frozen=True)
class StoredArray:
    """What the header of an array says, where it fits the archive.

    Attributes:
        name: in the archive, without ``.npy``.
        shape: of the array.
        dtype: of its numbers.
        start: of the data within the member, in bytes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one entry along the first axis."""
        return prod(self.shape[1:]) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"[:_SHOWN]


@contextmanager
def open_npz(file: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """Open the archive in a file; nothing of it is unpacked yet.

    Raises:
        NpzError: it is no zip archive, or is cut short.
    """
    with _damage_told():
        start = file.read(len(_ZIP_START))
        file.seek(0)
    try:
        archive = zipfile.ZipFile(file)
    except Exception as error:  # a damaged directory raises errors of many kinds
        raise NpzError(_DAMAGED if start == _ZIP_START else "it is not an .npz archive") from error
    with archive:
        yield archive


def array_names(archive: zipfile.ZipFile) -> list[str]:
    """The names of the arrays, sorted, without ``.npy``."""
    return sorted(name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy"))


def stored_array(archive: zipfile.ZipFile, name: str) -> StoredArray:
    """Read an array's header, and no more.

    Raises:
        NpzError: there is none of this name, it needs code to be read, it is laid out in Fortran order, or the sizes
            that header and archive give do not fit together.
    """
    try:
        info = archive.getinfo(f"{name}.npy")
    except KeyError:
        there = ", ".join(array_names(archive)[:_SHOWN])[:_SHOWN]
        raise NpzError(f"it has no array `{name}`, only {there}" if there else "it has no arrays") from None
    if info.compress_type not in _METHODS:
        raise NpzError(f"its array `{name}` is packed in a way that NumPy does not write")
    if info.flag_bits & 1:
        raise NpzError(f"its array `{name}` is encrypted")
    with _damage_told(), archive.open(info) as member:
        header = io.BytesIO(member.read(_HEADER_BYTES))
    shape, fortran_order, dtype = _parse(header, name)
    if dtype.hasobject:
        raise NpzError(f"its array `{name}` holds Python objects, which only running code of unknown origin could read")
    if fortran_order and len(shape) > 1:
        raise NpzError(f"its array `{name}` is laid out in Fortran order; numpy.ascontiguousarray turns it round")
    if not all(0 <= side <= info.file_size for side in shape):
        raise NpzError(f"its array `{name}` has not the shape that its header says")
    size = header.tell() + prod(shape) * dtype.itemsize
    if info.file_size != size:
        raise NpzError(f"its array `{name}` should take {size:,} bytes and takes {info.file_size:,}")
    if info.file_size > _LARGEST_RATIO * info.compress_size + _SLACK_BYTES:
        raise NpzError(f"its array `{name}` claims {size:,} bytes, more than {info.compress_size:,} can unpack to")
    return StoredArray(name, shape, dtype, header.tell())


def read_pieces(archive: zipfile.ZipFile, array: StoredArray, rows: int) -> Iterator[NDArray[Any]]:
    """Yield an array in order, at most ``rows`` entries of its first axis at a time; with the last, check its CRC.

    Raises:
        NpzError: the data is damaged or cut short.
    """
    with _damage_told():
        member = archive.open(f"{array.name}.npy")
    with member:
        _read(member, array.start)
        for first in range(0, array.shape[0], rows):
            count = min(rows, array.shape[0] - first)
            data = _read(member, count * array.row_bytes)
            yield np.frombuffer(data, array.dtype).reshape(count, *array.shape[1:])


def _parse(header: io.BytesIO, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old NumPy's headers are read, too
            if np.lib.format.read_magic(header) == (1, 0):
                return np.lib.format.read_array_header_1_0(header)
            header.seek(0)
            if np.lib.format.read_magic(header) == (2, 0):
                return np.lib.format.read_array_header_2_0(header)
    except Exception as error:  # NumPy's parser answers damage with errors of many kinds
        raise NpzError(f"the header of its array `{name}` is damaged") from error
    raise NpzError(f"the header of its array `{name}` is of an unknown version")


def _read(member: IO[bytes], size: int) -> bytes:
    with _damage_told():
        data = member.read(size)
    if len(data) != size:
        raise NpzError(_DAMAGED)
    return data


@contextmanager
def _damage_told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NpzError(f"it cannot be read ({error.strerror or error})") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise NpzError(_DAMAGED) from error
