"""A teacher's answers to natural images, kept between epochs, runs and students.

A training image is (index, variant), so a teacher that sees no attacked images has a countable number of answers. They
are rounded to float16 whether they come from the teacher or from the cache. The file is ``label_file``'s; it works for
many processes at once, but not across machines on a network file system: give each its own ``COMPRESS_CACHE_DIR``.
"""

from __future__ import annotations

import logging
import os
import shutil
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from compressor.core.errors import UsageError
from compressor.numerics.sampling import Indices
from compressor.system.cache_folder import cache_folder, mark_used
from compressor.system.sizes import format_size
from compressor.training.teaching.label_file import LabelFile, LabelKey, Logits, Mask, make_label_file, open_label_file

if TYPE_CHECKING:  # the command that lists caches must start without torch
    from torch import Tensor

LOG = logging.getLogger("compressor.training")
FOLDER = "labels"

_NOT_KEPT = "the teacher's answers are not kept for the next epochs and runs"
_LARGEST_HALF = 65504.0


def open_label_cache(key: LabelKey, *, limit: int, folder: Path | None = None) -> LabelCache | None:
    """Open the file of a key, or make it.

    Args:
        key: whose answers to what.
        limit: bytes that the full file may take; 0 switches the cache off.
        folder: instead of ``cache_folder()``.

    Returns:
        ``None`` where the file would be larger than ``limit``, or cannot be made or opened; a log message says which.
    """
    if limit == 0:
        return None
    if key.file_size > limit:
        sizes = format_size(key.file_size), format_size(limit)
        LOG.info("%s: all of them take %s, more than the limit of %s", _NOT_KEPT, *sizes)
        return None
    if not hasattr(os, "pwrite"):
        LOG.info("%s: this system cannot write at a position", _NOT_KEPT)
        return None
    path = (folder or cache_folder()) / FOLDER / key.file_name
    try:
        file = _open_or_make(path, key)
        free = shutil.disk_usage(path.parent).free
    except OSError as error:
        LOG.warning("%s: %s cannot be used (%s)", _NOT_KEPT, path, error.strerror or error)
        return None
    mark_used(path)
    cache = LabelCache(file)
    if free < key.file_size - file.disk_bytes:
        # Filling the disk to the last byte would stop the run itself at its next checkpoint.
        cache.stop_writing(f"{format_size(free)} are free in {path.parent}")
    return cache


def round_labels(logits: Tensor) -> Tensor:
    """Logits as the cache gives them back: rounded to float16 and clamped to its finite range; float32, same shape."""
    return logits.float().clamp(-_LARGEST_HALF, _LARGEST_HALF).half().float()


class LabelCache:
    """The answers that are kept: what is written stays as it is, what is damaged or absent is not found."""

    def __init__(self, file: LabelFile) -> None:
        self._file = file
        self._writing = True

    @property
    def key(self) -> LabelKey:
        """Whose answers to what."""
        return self._file.key

    def read(self, index: Indices, variant: Indices) -> tuple[Logits, Mask]:
        """Look answers up.

        Args:
            index: int64 ``[b]``, positions in the dataset's whole training split.
            variant: int64 ``[b]``.

        Returns:
            float16 ``[b, K]``, zeros where nothing was found; and bool ``[b]``, what was.

        Raises:
            IndexError: an index or a variant is out of range.
        """
        return self._file.read(self._positions(index, variant))

    def write(self, index: Indices, variant: Indices, logits: Logits) -> None:
        """Keep answers; not those that are not finite, nor where there is one already.

        The first answer stays, so that what one run has counted on is not changed by another.
        A full disk is said once; from then on nothing is written.

        Args:
            index: int64 ``[b]``, positions in the dataset's whole training split.
            variant: int64 ``[b]``.
            logits: float16 ``[b, K]``, rounded by ``round_labels``.

        Raises:
            IndexError: an index or a variant is out of range.
            ValueError: the logits have another type or shape.
        """
        positions = self._positions(index, variant)
        if logits.dtype != np.float16 or logits.shape != (len(positions), self.key.classes):
            raise ValueError(f"logits are {logits.dtype} {list(logits.shape)}")
        if not self._writing:
            return
        wanted = np.isfinite(logits).all(axis=1) & ~self._file.read(positions)[1]
        try:
            self._file.write(positions[wanted], logits[wanted])
        except OSError as error:
            self.stop_writing(error.strerror or str(error))

    def valid(self) -> Mask:
        """Which answers are there, ``[N, V]``; reads the whole file, in blocks."""
        return self._file.valid()

    def stop_writing(self, reason: str) -> None:
        """Keep nothing new from now on, and say why; what is there can still be read."""
        self._writing = False
        LOG.warning("new answers of the teacher are not kept for the next epochs and runs: %s", reason)

    def _positions(self, index: Indices, variant: Indices) -> Indices:
        key = self.key
        for values, end, name in ((index, key.images, "an index"), (variant, key.variants, "a variant")):
            if len(values) and not 0 <= values.min() <= values.max() < end:
                raise IndexError(f"{name} is not from 0 to {end - 1}")
        return index * key.variants + variant


class LabelView:
    """Which answers a run counts on: a bool array ``known`` ``[N, V]``, saved with the run's state.

    Other runs fill the file meanwhile. A run takes from it only what its view knows, and tells the view of its own
    answers when an epoch ends; each image is seen once an epoch, so nothing is lost. A resumed run then finds what the
    run that never stopped would have found.
    """

    def __init__(self, known: Mask) -> None:
        self.known = known

    @classmethod
    def fresh(cls, cache: LabelCache) -> LabelView:
        """All that the file has now."""
        return cls(cache.valid())

    @classmethod
    def unpack(cls, packed: bytes, shape: tuple[int, int]) -> LabelView:
        """The view of which ``pack`` made these bytes.

        Args:
            packed: bytes of a run's saved state.
            shape: ``(N, V)``.

        Raises:
            UsageError: the bytes are damaged, or of a view of another size.
        """
        bits = shape[0] * shape[1]
        size = (bits + 7) // 8
        stream = zlib.decompressobj()
        try:
            unpacked = stream.decompress(packed, size + 1)
        except zlib.error:
            unpacked = b""
        if len(unpacked) != size or not stream.eof:
            raise UsageError(
                "the run's record of the teacher's kept answers is damaged, or is another teacher's or dataset's.",
                "Start a new run with another --run.",
            )
        known = np.unpackbits(np.frombuffer(unpacked, np.uint8), count=bits)
        return cls(known.astype(np.bool_).reshape(shape))

    def pack(self) -> bytes:
        """A bit for each answer, compressed; equal views give equal bytes."""
        return zlib.compress(np.packbits(self.known).tobytes())

    def knows(self, index: Indices, variant: Indices) -> Mask:
        """Which of these answers the run counts on, bool ``[b]``."""
        known: Mask = self.known[index, variant]
        return known

    def add(self, index: Indices, variant: Indices) -> None:
        """Count on these answers from now on; called at the end of the epoch in which they were written."""
        self.known[index, variant] = True


def _open_or_make(path: Path, key: LabelKey) -> LabelFile:
    try:
        return open_label_file(path, key)
    except FileNotFoundError:
        make_label_file(path, key)
    except ValueError as error:
        LOG.warning("the cached answers %s cannot be used (%s); starting an empty file", path, error)
        make_label_file(path, key, replace=True)
    try:
        return open_label_file(path, key)
    except ValueError as error:
        raise OSError(str(error)) from error
