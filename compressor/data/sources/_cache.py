"""Decoded pictures kept on disk: one ``.npy`` file for each listing, size and decoder version."""

from __future__ import annotations

import io
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path

import numpy as np

from compressor.core.errors import UnreadableDataError, WriteError
from compressor.data.sources._pictures import Pixels
from compressor.system.cache_folder import cache_folder, mark_used
from compressor.system.files import atomic_path
from compressor.system.memory import fits_in_memory
from compressor.system.scratch import bytes_on_disk

LOG = logging.getLogger("compressor.data")

Shape = tuple[int, int, int, int]
Blocks = Callable[[], Iterator[Pixels]]

_HEADER_BYTES = 1 << 12
_SHAPE = re.compile(rb"\(([0-9]{1,12}), 3, ([0-9]{1,5}), ([0-9]{1,5})\)")


def cached_images(file_name: str, shape: Shape, blocks: Blocks) -> Pixels:
    """Open decoded pictures from the cache, or decode them into it.

    Where the cache cannot be read or written, a warning says so and the pictures are decoded into memory.

    Args:
        file_name: names the content: equal names must mean equal pictures.
        shape: ``(N, 3, size, size)`` of all pictures together.
        blocks: decodes them, in blocks ``[b, 3, size, size]`` in order.

    Returns:
        uint8 of that shape; memory-mapped where it would take more than half of the free memory.
    """
    images = _cached(file_name, shape, blocks)
    if images is None:
        return _in_memory(shape, blocks)
    return np.array(images) if fits_in_memory(images.nbytes) else images


def mapped_images(file_name: str, shape: Shape, blocks: Blocks) -> Pixels:
    """Open pictures as ``cached_images`` does, but never bring them into memory as a whole.

    Where the cache cannot be read or written, a warning says so and a temporary file takes its place.

    Returns:
        uint8 of that shape, memory-mapped.

    Raises:
        WriteError: there is no space for a temporary file either.
    """
    images = _cached(file_name, shape, blocks)
    return _in_temporary_file(shape, blocks) if images is None else images


def decoded_shape(path: Path) -> Shape:
    """The shape ``(N, 3, size, size)`` of a cached file of pictures; reads its header alone, and its length.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not such a file, or is damaged.
    """
    with path.open("rb") as file:
        start = file.read(_HEADER_BYTES)
        size = os.fstat(file.fileno()).st_size
    # NumPy's own parser answers damage with errors of many kinds; a header that we wrote can be written again.
    match = _SHAPE.search(start)
    if match is None:
        raise ValueError("its header is damaged, or not of pictures")
    n, height, width = (int(number) for number in match.groups())
    shape = n, 3, height, width
    header = _header(shape)
    if not start.startswith(header):
        raise ValueError("its header is damaged, or not of pictures")
    if size != len(header) + prod(shape):
        raise ValueError(f"it has {size:,} bytes, not {len(header) + prod(shape):,}")
    return shape


def _cached(file_name: str, shape: Shape, blocks: Blocks) -> Pixels | None:
    """The cached array, decoded into the cache where it is absent; ``None`` where the cache cannot be used."""
    path = cache_folder() / "decoded" / file_name
    images = _open(path, shape)
    if images is not None:
        return images
    LOG.info("decoding %d pictures", shape[0])
    try:
        _check_space(path, prod(shape) + _HEADER_BYTES)
        _write(path, shape, blocks)
    except WriteError as error:
        LOG.warning("decoded pictures are not kept for the next run: %s", error.message)
        return None
    return _open(path, shape)


def _open(path: Path, shape: Shape) -> Pixels | None:
    """The cached array, memory-mapped, or ``None`` where there is none that can be used."""
    try:
        found = decoded_shape(path)
        if found != shape:
            raise ValueError(f"it holds {list(found)}, not {list(shape)}")
        # Copy-on-write, so that torch can share the memory and nothing ever changes the file.
        images: Pixels = np.memmap(path, np.uint8, "c", offset=len(_header(shape)), shape=shape)
        mark_used(path)
        return images
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        LOG.warning("the cached pictures %s cannot be used (%s); decoding again", path, error)
        return None


def _header(shape: Shape) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return header.getvalue()


def _check_space(path: Path, size: int) -> None:
    """Ask for the space first, so that a full disk costs no decoding."""
    folder = next((folder for folder in path.parents if folder.is_dir()), None)
    if folder is not None and shutil.disk_usage(folder).free < size:
        raise WriteError(f"cannot write {path}: {size:,} bytes are not free.", "Free some space.")


def _write(path: Path, shape: Shape, blocks: Blocks) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(_header(shape))
        for block in blocks():
            file.write(block.data)


def _in_temporary_file(shape: Shape, blocks: Blocks) -> Pixels:
    folder, size = Path(tempfile.gettempdir()), prod(shape)
    LOG.warning("%d decoded pictures lie in a temporary file in %s for this run: %d bytes", shape[0], folder, size)
    _check_space(folder / "pictures", size)
    return bytes_on_disk(folder, shape, blocks())


def _in_memory(shape: Shape, blocks: Blocks) -> Pixels:
    try:
        images = np.empty(shape, dtype=np.uint8)
    except MemoryError:
        raise UnreadableDataError(
            f"{shape[0]:,} decoded pictures take {prod(shape):,} bytes, more than the memory holds.",
            "Set COMPRESS_CACHE_DIR to a folder with that much space: the pictures then stay on the disk.",
        ) from None
    start = 0
    for block in blocks():
        images[start : start + len(block)] = block
        start += len(block)
    return images
