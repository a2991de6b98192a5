"""Many pictures become blocks of one uint8 array, decoded by a few threads, in order."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from compressor.data.sources._pictures import Pixels, fit, read_picture, to_pixels
from compressor.system.threads import available_threads

OnProgress = Callable[[int, int], None]

_BLOCK_BYTES = 1 << 25
_PIECE = 64
_MAX_THREADS = 8
_on_progress: ContextVar[OnProgress | None] = ContextVar("compressor_on_decoding_progress", default=None)


@contextmanager
def watch_decoding(on_progress: OnProgress) -> Iterator[None]:
    """Call ``on_progress(done, total)`` after each block of pictures that is decoded inside this context."""
    token = _on_progress.set(on_progress)
    try:
        yield
    finally:
        _on_progress.reset(token)


def tell_decoded(done: int, total: int) -> None:
    """Call the context's ``on_progress`` with how many pictures are decoded."""
    on_progress = _on_progress.get()
    if on_progress is not None:
        on_progress(done, total)


def decode_files(paths: Sequence[Path], size: int) -> Iterator[Pixels]:
    """Decode picture files to blocks ``[b, 3, size, size]``, in the order of ``paths``.

    Raises:
        UnreadableDataError: a picture cannot be used; of several, the first in order is named.
    """
    return _blocks(lambda i: read_picture(paths[i], size), len(paths), size)


def resize_arrays(images: Pixels, size: int) -> Iterator[Pixels]:
    """Bring pictures ``[N, 3, H, W]`` to blocks ``[b, 3, size, size]`` by the rules for picture files."""
    return _blocks(
        lambda i: to_pixels(fit(Image.fromarray(images[i].transpose(1, 2, 0).copy()), size)), len(images), size
    )


def _blocks(picture: Callable[[int], Pixels], total: int, size: int) -> Iterator[Pixels]:
    per_block = max(_PIECE, _BLOCK_BYTES // (3 * size * size) // _PIECE * _PIECE)
    with ThreadPoolExecutor(min(available_threads(), _MAX_THREADS), thread_name_prefix="decode") as pool:
        for start in range(0, total, per_block):
            stop = min(start + per_block, total)
            block = np.empty((stop - start, 3, size, size), dtype=np.uint8)
            # What decoders warn of (odd metadata, large files) is settled by our own rules and limits.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pieces = range(start, stop, _PIECE)
                for _ in pool.map(partial(_fill, block, picture, start, stop), pieces):
                    pass
            yield block
            tell_decoded(stop, total)


def _fill(block: Pixels, picture: Callable[[int], Pixels], start: int, stop: int, first: int) -> None:
    for index in range(first, min(first + _PIECE, stop)):
        block[index - start] = picture(index)
