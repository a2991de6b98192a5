"""Large arrays on the disk for as long as they are used."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from compressor.core.errors import WriteError


def bytes_on_disk(
    folder: Path, shape: tuple[int, ...], blocks: Iterable[np.ndarray[Any, np.dtype[np.uint8]]]
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A uint8 array of a shape on a temporary file, whose space comes back when the last array on it goes.

    Raises:
        WriteError: the file system refused.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:  # without a name
            for block in blocks:
                file.write(block.data)
            file.flush()
            return np.memmap(file, np.uint8, "c", shape=shape)
    except OSError as error:
        raise WriteError(
            f"cannot write {prod(shape):,} bytes to {folder}: {error.strerror or error}.",
            "Set COMPRESS_CACHE_DIR to a folder with that much space.",
        ) from error
