"""The front door of the data room: open a dataset by its spec, split it, take a part of it, name it by a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compressor.core.contracts import Dataset, Split, SplitName
from compressor.core.errors import UsageError
from compressor.core.registry import DATASETS
from compressor.core.types import DatasetSpec
from compressor.data.sources._decoding import OnProgress, watch_decoding
from compressor.numerics.randomness import derive_seed
from compressor.numerics.sampling import Indices, balanced_indices
from compressor.system.cache_folder import cache_folder
from compressor.system.files import canonical_json
from compressor.system.memory import fits_in_memory
from compressor.system.scratch import bytes_on_disk

__all__ = [
    "DRAW_RULE",
    "OnProgress",
    "carve_validation",
    "digest",
    "draw",
    "open_dataset",
    "split_digest",
    "subset_indices",
    "take",
    "take_balanced",
    "training_splits",
    "watch_decoding",
]

DRAW_RULE = "draw@1"

_SMALLEST_SIDE, _LARGEST_SIDE = 8, 1024
_CHUNK_BYTES = 1 << 25


def open_dataset(
    spec: DatasetSpec, *, data_dir: Path | None = None, download: bool = False, image_size: int = 32
) -> Dataset:
    """Open the dataset that ``--data`` names; its pictures are decoded when a split is first loaded.

    Args:
        spec: the registered name and its argument.
        data_dir: where archives are looked for; each dataset says its default.
        download: whether an absent archive may be fetched.
        image_size: the side of every picture, in pixels, from 8 to 1,024.

    Raises:
        UnknownNameError: no such dataset.
        UsageError: the size is out of range, or the argument makes no sense.
        MissingDataError: the data is not here; the hint names the ways out.
        UnreadableDataError: the data is here and cannot be used.
    """
    if not _SMALLEST_SIDE <= image_size <= _LARGEST_SIDE:
        raise UsageError(
            f"the image size {image_size} is not from {_SMALLEST_SIDE} to {_LARGEST_SIDE} pixels.",
            "Choose another --image-size.",
        )
    opener = DATASETS.get(spec.name)
    dataset: Dataset = opener(spec.argument, data_dir=data_dir, download=download, image_size=image_size)
    return dataset


def training_splits(dataset: Dataset, validation_samples: int, seed: int) -> tuple[Split, Split]:
    """The training and the validation split: the dataset's own validation split, else one carved out of train.

    Args:
        dataset: any opened dataset with a training split.
        validation_samples: how many to carve out; of no effect where the dataset comes with a validation split.
        seed: fixes which are carved out.
    """
    train = dataset.load("train")
    if dataset.has("validation"):
        return train, dataset.load("validation")
    return carve_validation(train, validation_samples, seed, len(dataset.class_names))


def carve_validation(split: Split, n: int, seed: int, classes: int) -> tuple[Split, Split]:
    """Part a split into what is left for training and ``n`` class-balanced validation samples, both in their order.

    Args:
        split: the whole training split.
        n: how many validation samples; 0 gives an empty validation split.
        seed: fixes which.
        classes: how many classes there are; each that has samples must keep one for training.

    Raises:
        UsageError: ``n`` is negative, or so large that a class would have nothing left for training.
    """
    if n < 0:
        raise UsageError(f"{n} validation samples cannot be carved out.", "Ask for 0 or more.")
    validation = balanced_indices(split.labels, n, derive_seed(seed, "validation"))
    left = np.ones(len(split), dtype=bool)
    left[validation] = False
    before = np.bincount(split.labels, minlength=classes)
    after = np.bincount(split.labels[left], minlength=classes)
    if np.any((before > 0) & (after == 0)):
        raise UsageError(
            f"{n} validation samples out of {len(split)} leave a class without training samples.",
            "Ask for fewer validation samples, or for more training samples.",
        )
    return take(split, np.flatnonzero(left)), take(split, validation)


def subset_indices(labels: Indices, n: int, seed: int) -> Indices:
    """Ascending positions of at most ``n`` samples, as even over the classes as can be, fixed by the seed.

    A smaller subset is part of every larger one of the same seed.

    Args:
        labels: ``[N]``.
        n: at least 1; all positions where there are no more than ``n``.
        seed: fixes which.

    Raises:
        UsageError: ``n`` is below 1.
    """
    if n < 1:
        raise UsageError(f"a subset of {n} samples is empty.", "Ask for 1 or more.")
    return balanced_indices(labels, n, derive_seed(seed, "subset"))


def take_balanced(split: Split, n: int, seed: int) -> Split:
    """At most ``n`` class-balanced samples of a split, in their order; which: see ``subset_indices``."""
    if n >= len(split):
        return split
    return take(split, subset_indices(split.labels, n, seed))


def take(split: Split, indices: Indices) -> Split:
    """The samples at ``indices`` ``[n]``, copied; to the disk where they would take half of the free memory."""
    shape = (len(indices), *split.images.shape[1:])
    size = int(np.prod(shape))
    origin = indices.astype(np.int64) if split.origin is None else split.origin[indices]
    if fits_in_memory(size):
        return Split(split.images[indices], split.labels[indices], origin)
    images = bytes_on_disk(cache_folder(), shape, _chunks(split.images, indices))
    return Split(images, split.labels[indices], origin)


def split_digest(dataset: Dataset, split_name: SplitName) -> str:
    """The digest of a dataset's split at its image size; see ``digest``."""
    return digest(dataset.load(split_name), dataset.class_names)


def digest(split: Split, class_names: Sequence[str]) -> str:
    r"""SHA-256 of what a split holds: equal pictures, labels and class names give equal digests, from any source.

    ``SHA-256(header || pixels || labels)``. The header is ``"compress.split/1\n"``, the canonical JSON of
    ``{"class_names": [...], "shape": [N, C, H, W]}`` and ``"\n"``; pixels are bytes in the order of the shape; labels
    are little-endian int64.

    Returns:
        64 hexadecimal digits.
    """
    header = {"class_names": list(class_names), "shape": list(split.images.shape)}
    hashed = hashlib.sha256(f"compress.split/1\n{canonical_json(header)}\n".encode())
    for chunk in _chunks(split.images):
        hashed.update(chunk.data)
    hashed.update(split.labels.astype("<i8").tobytes())
    return hashed.hexdigest()


def draw(digest: str, *, total: int, n: int) -> Indices:
    """The evidence draw, rule ``draw@1``: ``n`` of ``total`` positions, fixed by the digest alone.

    Position ``i`` has the key ``SHA-256("compress.draw/1" || digest || i)``, with the digest as 32 bytes and ``i`` as
    8 bytes, big-endian. The draw is the ``n`` positions of the smallest keys, in the order of their keys: a simple
    random sample without replacement, and a shorter draw begins a longer one.

    Args:
        digest: the split's digest, 64 hexadecimal digits.
        total: how many samples the split has.
        n: how many to draw, from 0 to ``total``.

    Returns:
        int64 ``[n]``.

    Raises:
        UsageError: ``n`` is out of range, or the digest is not one.
    """
    if not 0 <= n <= total:
        raise UsageError(f"{n} of {total} samples cannot be drawn.", f"Ask for 0 to {total}.")
    try:
        key = bytes.fromhex(digest)
    except ValueError:
        key = b""
    if len(key) != hashlib.sha256().digest_size:
        raise UsageError(f"{digest[:80]!r} is not a SHA-256 digest.", "It has 64 hexadecimal digits.")
    start = hashlib.sha256(b"compress.draw/1" + key)

    def rank(position: int) -> bytes:
        hashed = start.copy()
        hashed.update(position.to_bytes(8, "big"))
        return hashed.digest()

    return np.array(sorted(range(total), key=rank)[:n], dtype=np.int64)


def _chunks(images: np.ndarray[Any, np.dtype[np.uint8]], indices: Indices | None = None) -> Any:
    """Yield C-ordered pieces of ``images`` (at ``indices``), small enough to hold whatever the whole may be."""
    total = len(images) if indices is None else len(indices)
    step = max(1, _CHUNK_BYTES // max(1, images[:1].nbytes))
    for start in range(0, total, step):
        part = slice(start, start + step)
        yield np.ascontiguousarray(images[part] if indices is None else images[indices[part]])
