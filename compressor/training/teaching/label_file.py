r"""The file of a label cache: a header that says whose answers it holds, then one record for each (image, variant).

All numbers are little-endian. The header takes 4096 bytes: 16 of magic (``compress.labels\n``), the version and the
length of what follows as uint32, the canonical JSON of the key, and zeros. Then come ``N x V`` records, image by image,
each of ``K`` float16 logits and a uint16 checksum. A record is absent while its checksum is 0, as in a sparse file.

The checksum ``1 + (w_0 g + w_1 g^2 + ...) mod 65521``, ``g = 17``, is over four 15-bit words of the record's position,
lowest first, and its K words. It tells every change within one byte, and all but one in 65,521 of other changes: a
record that was damaged, torn by a crash or written to another place is taken for absent. So nothing is locked: any
number of processes read and write at once, through the page cache that they share. A network file system gives
different machines no such common view of a memory map: there, let every machine have its own ``COMPRESS_CACHE_DIR``.

Records are read through a map but written by ``pwrite``: on a full disk, a store into the map would kill the process.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import stat
import struct
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from compressor.numerics.sampling import Indices, random_below
from compressor.system.files import canonical_json, sha256_bytes

Words = np.ndarray[Any, np.dtype[np.uint16]]
Logits = np.ndarray[Any, np.dtype[np.float16]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

SUFFIX = ".labels"

_MAGIC, _VERSION = b"compress.labels\n", 1
_PREFIX = struct.Struct("<16sII")
_HEADER_BYTES = 1 << 12
_WORD = np.dtype("<u2")
_HALF = np.dtype("<f2")
_PRIME, _ROOT = 65521, 17
_POSITION_WORDS = 4
_BLOCK_WORDS = 1 << 22
_SAMPLED_RECORDS = 1 << 16


@dataclass(frozen=True)
class LabelKey:
    """What decides a cached answer: the teacher, the way it computes, the pictures; and the file's extent."""

    teacher: str
    """Its architecture's name."""
    teacher_sha256: str
    """Digest of its checkpoint."""
    normalization: str
    activation: str
    precision: str
    """What it computes in, such as ``fp32``."""
    dataset: str
    train_sha256: str
    """Digest of the dataset's whole training split, whose positions index the file."""
    image_size: int
    images: int
    """N, the pictures of that split."""
    variants: int
    """V, the augmentation variants of a picture."""
    classes: int
    """K."""

    @property
    def file_name(self) -> str:
        """Equal keys have equal names."""
        return sha256_bytes(canonical_json(asdict(self)).encode())[:32] + SUFFIX

    @property
    def file_size(self) -> int:
        """Bytes of the file with all its holes."""
        return _HEADER_BYTES + self.images * self.variants * (self.classes + 1) * _WORD.itemsize

    def header(self) -> bytes:
        """The file's first 4096 bytes.

        Raises:
            ValueError: the names are too long for it, or there is nothing to hold.
        """
        text = canonical_json(asdict(self)).encode()
        if len(text) > _HEADER_BYTES - _PREFIX.size or min(self.images, self.variants, self.classes) < 1:
            raise ValueError("the key does not fit into a header")
        return (_PREFIX.pack(_MAGIC, _VERSION, len(text)) + text).ljust(_HEADER_BYTES, b"\0")


class LabelFile:
    """One open file: records by position, with no policy of what is kept; closed when it is no longer referred to."""

    def __init__(self, descriptor: int, key: LabelKey) -> None:
        self.key = key
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)
        mapped = mmap.mmap(descriptor, key.file_size, access=mmap.ACCESS_READ)
        words = np.frombuffer(mapped, _WORD, offset=_HEADER_BYTES)
        self._records: Words = words.reshape(key.images * key.variants, key.classes + 1)

    def __len__(self) -> int:
        return len(self._records)

    @property
    def disk_bytes(self) -> int:
        """Bytes that the file takes on the disk, without its holes."""
        return disk_bytes(os.fstat(self._descriptor))

    def read(self, positions: Indices) -> tuple[Logits, Mask]:
        """Logits ``[b, K]`` and which of them are there ``[b]``; the others are zero.

        Args:
            positions: ``[b]``, ``image * V + variant``, each from 0 to ``len(self) - 1``.
        """
        records = self._records[positions]  # a copy: what is checked cannot change any more
        found = _is_valid(records, positions)
        logits = records[:, :-1].view(_HALF).astype(np.float16)
        logits[~found] = 0
        return logits, found

    def write(self, positions: Indices, logits: Logits) -> None:
        """Write records, each whole; those of equal positions in any order.

        Args:
            positions: ``[b]``.
            logits: ``[b, K]``.

        Raises:
            OSError: the disk is full or broken; some may have been written.
        """
        words = np.ascontiguousarray(logits, dtype=_HALF).view(_WORD)
        checksums = _checksums(words, positions).astype(_WORD)
        records = np.concatenate([words, checksums[:, None]], axis=1)
        for position, record in zip(positions.tolist(), records, strict=True):
            self._put(position, record.tobytes())

    def drop_damaged(self) -> int:
        """Make absent every record that is neither absent nor valid, and return how many there were.

        Raises:
            OSError: a record cannot be overwritten.
        """
        dropped, nothing = 0, bytes(self._records.shape[1] * _WORD.itemsize)
        for positions, marked in self._blocks():
            suspects = positions[marked & ~self._check(positions, marked)]
            # Read again: what looked damaged may have been another process in the middle of writing it.
            for position in suspects[~self.read(suspects)[1]].tolist():
                self._put(position, nothing)
                dropped += 1
        return dropped

    def valid(self) -> Mask:
        """Which records are there and pass their checksums, ``[N, V]``."""
        valid = np.concatenate([self._check(positions, marked) for positions, marked in self._blocks()])
        return valid.reshape(self.key.images, self.key.variants)

    def filled(self) -> float:
        """The fraction of records that are there, checksums unseen; of a sample of 65,536 where there are more."""
        marks = self._records[:, -1]
        if len(marks) > _SAMPLED_RECORDS:
            marks = marks[random_below(0, np.arange(_SAMPLED_RECORDS), len(marks))]
        return float(np.count_nonzero(marks) / len(marks))

    def _blocks(self) -> Iterator[tuple[Indices, Mask]]:
        """Yield positions that follow each other, and which of them are not absent."""
        step = max(1, _BLOCK_WORDS // self._records.shape[1])
        for start in range(0, len(self), step):
            marked = self._records[start : start + step, -1] != 0
            yield np.arange(start, start + len(marked)), marked

    def _check(self, positions: Indices, marked: Mask) -> Mask:
        valid = np.zeros(len(positions), dtype=np.bool_)
        chosen = positions[marked]
        valid[marked] = _is_valid(self._records[chosen], chosen)
        return valid

    def _put(self, position: int, record: bytes) -> None:
        if os.pwrite(self._descriptor, record, _HEADER_BYTES + position * len(record)) != len(record):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def open_label_file(path: Path, key: LabelKey | None = None, *, writable: bool = True) -> LabelFile:
    """Open a file that is there.

    Args:
        path: the file.
        key: whose answers it must hold; ``None`` takes the file's own word for it.
        writable: whether records will be written.

    Raises:
        FileNotFoundError: there is none.
        OSError: it cannot be opened.
        ValueError: it is not a label file, is damaged, or is another key's; the message says what.
    """
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        header = os.pread(descriptor, _HEADER_BYTES, 0)
        key = key or _parse_key(header)
        if header != key.header():
            raise ValueError("its header is damaged, or another key's")
        if status.st_size != key.file_size:
            raise ValueError(f"it has {status.st_size:,} bytes, not {key.file_size:,}")
    except BaseException:
        os.close(descriptor)
        raise
    return LabelFile(descriptor, key)


def make_label_file(path: Path, key: LabelKey, *, replace: bool = False) -> None:
    """Make a file without records, in one step: other processes see none of it or all.

    Args:
        path: where; its folder is made.
        key: whose answers it will hold.
        replace: whether to put it in the place of what is there; else what is there stays, as another process made it.

    Raises:
        OSError: the file system refused.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.header())
            file.truncate(key.file_size)
        # mkstemp makes files private; caches may be shared like any other file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        if replace:
            temporary.replace(path)
        else:
            _publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def disk_bytes(status: os.stat_result) -> int:
    """Bytes that a file takes on the disk; its size where the system does not tell."""
    blocks = getattr(status, "st_blocks", None)
    return status.st_size if blocks is None else int(blocks) * 512


def _publish(temporary: Path, path: Path) -> None:
    """Give the file its name unless the name is taken."""
    with suppress(FileExistsError):
        try:
            os.link(temporary, path)
        except OSError as error:
            if isinstance(error, FileExistsError) or path.exists():
                raise
            temporary.replace(path)  # a file system without links: the last maker wins instead of the first


def _parse_key(header: bytes) -> LabelKey:
    """The key that a header names; what else is wrong with the header, a comparison with the key's own shows."""
    if len(header) != _HEADER_BYTES:
        raise ValueError("it is shorter than a header")
    magic, version, length = _PREFIX.unpack_from(header)
    if magic != _MAGIC or version != _VERSION:
        raise ValueError(f"it is not a label cache of version {_VERSION}")
    try:
        values = json.loads(header[_PREFIX.size : _PREFIX.size + length])
        types = {field.name: {"int": int, "str": str}[str(field.type)] for field in fields(LabelKey)}
        if {name: type(value) for name, value in values.items()} != types:
            raise ValueError("its key has other fields")
        return LabelKey(**values)
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError("its key cannot be read") from error


def _is_valid(records: Words, positions: Indices) -> Mask:
    """Which records ``[n, K + 1]`` carry the checksum of their words and position; an absent one carries 0."""
    valid: Mask = records[:, -1] == _checksums(records[:, :-1], positions)
    return valid


def _checksums(words: Words, positions: Indices) -> Indices:
    """Checksums ``[n]``, from 1 to 65521, of words ``[n, K]`` at positions ``[n]``."""
    weights = _weights(words.shape[1] + _POSITION_WORDS)
    # Products are below 2^32, so int64 holds the sum of more words than a header can ask for.
    total = words.astype(np.int64) @ weights[_POSITION_WORDS:]
    for word in range(_POSITION_WORDS):
        total += ((positions >> (15 * word)) & 0x7FFF) * weights[word]
    return 1 + total % _PRIME


@lru_cache(maxsize=8)
def _weights(count: int) -> Indices:
    """``g, g^2, ...`` modulo the prime: g generates all residues, so the weights repeat only after 65,520."""
    return np.array([pow(_ROOT, power, _PRIME) for power in range(1, count + 1)], dtype=np.int64)
