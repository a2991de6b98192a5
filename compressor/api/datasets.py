"""Data in every form that the interface takes: a name, a dataset, or arrays of images and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np

from compressor.core.contracts import Dataset, Split, SplitName
from compressor.core.errors import UnreadableDataError, UsageError
from compressor.core.types import DatasetSpec
from compressor.data import datasets
from compressor.data.sources._dataset import LazyDataset

Pair: TypeAlias = tuple[Any, Any]
"""Images ``[N, C, H, W]`` and labels ``[N]``, as arrays or tensors."""

Data: TypeAlias = str | Dataset | Pair | Mapping[SplitName, Pair]

_WHITE = 255
_SPLITS = ("train", "validation", "test")


def open_dataset(
    data: Data,
    *,
    data_dir: str | Path | None = None,
    download: bool = False,
    image_size: int = 32,
    class_names: Sequence[str] | None = None,
    name: str = "arrays",
) -> Dataset:
    """Open a dataset by its name, or make one of arrays.

    Args:
        data: ``cifar10``, ``cifar100``, ``digits`` or ``imagefolder:DIR``; or a pair of images and labels, which is
            the test split; or pairs by the names of splits, ``{"train": (images, labels), "test": ...}``. Images are
            ``[N, C, H, W]``, uint8, or floats in [0, 1], which are rounded to 256 steps; labels are integers ``[N]``.
        data_dir: where downloaded datasets lie (default: data).
        download: fetch the dataset if it is not there.
        image_size: side of the square images, in pixels; arrays keep theirs.
        class_names: of arrays, in the order of the labels (default: the numbers up to the largest label).
        name: of a dataset of arrays, as run folders and claims record it.

    Returns:
        A dataset with ``name``, ``class_names``, ``image_size``, ``has(split)`` and ``load(split)``.

    Raises:
        UnknownNameError: no such dataset.
        UsageError: the image size is out of range, or the argument makes no sense.
        MissingDataError: the dataset is not here; the hint names the ways out.
        UnreadableDataError: the data is here and cannot be used.

    Example:
        >>> from compressor import open_dataset
        >>> digits = open_dataset("digits", image_size=16)
        >>> digits.load("test").images.shape
        (500, 3, 16, 16)
        >>> import numpy as np
        >>> images, labels = np.zeros((4, 3, 16, 16), np.uint8), np.array([0, 1, 2, 0])
        >>> open_dataset((images, labels)).class_names
        ('0', '1', '2')
    """
    if isinstance(data, str):
        spec = DatasetSpec.parse(data)
        folder = None if data_dir is None else Path(data_dir)
        return datasets.open_dataset(spec, data_dir=folder, download=download, image_size=image_size)
    return as_dataset(data, "test", class_names=class_names, name=name)


def as_dataset(
    data: Dataset | Pair | Mapping[SplitName, Pair],
    pair_is: SplitName,
    *,
    class_names: Sequence[str] | None = None,
    name: str = "arrays",
) -> Dataset:
    """Make a dataset of arrays, as ``open_dataset`` does; a pair is ``pair_is``, and a dataset stays as it is.

    Raises:
        UnreadableDataError: the arrays have other shapes or values. UsageError: it is none of these.
    """
    if hasattr(data, "load") and hasattr(data, "class_names"):
        return cast(Dataset, data)
    if isinstance(data, tuple) and len(data) == 2:
        pairs: dict[SplitName, Pair] = {pair_is: data}
    elif isinstance(data, Mapping) and data and set(data) <= set(_SPLITS):
        pairs = dict(data)
    else:
        raise UsageError(
            f"the data is a {type(data).__name__}, and no dataset.",
            'Give a name such as "cifar10", a dataset, (images, labels), or {"train": (images, labels), "test": ...}.',
        )
    splits = {split: _split(pair, split) for split, pair in pairs.items()}
    sides = {split.images.shape[2:] for split in splits.values()}
    side, *others = {length for shape in sides for length in shape}
    if others:
        raise UnreadableDataError(
            f"the images have sides of {', '.join(map(str, sorted({side, *others})))} pixels.",
            "Give square images of one size.",
        )
    largest = max(int(split.labels.max()) for split in splits.values())
    names = tuple(map(str, range(largest + 1))) if class_names is None else tuple(class_names)
    if largest >= len(names):
        raise UnreadableDataError(
            f"a label is {largest}, and there are {len(names)} class names.", "Name every class, in the labels' order."
        )
    loaders = {split: (lambda images=images: images) for split, images in splits.items()}
    hint = 'Give it as {"train": (images, labels), "test": (images, labels)}.'
    return LazyDataset(name, names, side, loaders, hint)


def _split(pair: Pair, name: SplitName) -> Split:
    images, labels = (_array(value) for value in pair)
    hint = "Give images [N, C, H, W] and labels [N]."
    if images.ndim != 4 or labels.shape != (len(images),) or len(images) == 0:
        raise UnreadableDataError(
            f"the {name} images have the shape {images.shape}, and the labels {labels.shape}.", hint
        )
    if not np.issubdtype(labels.dtype, np.integer) or int(labels.min()) < 0:
        raise UnreadableDataError(f"the {name} labels are {labels.dtype}, or below 0.", "Give class numbers from 0 on.")
    return Split(_bytes(images, name), labels.astype(np.int64))


def _array(value: Any) -> np.ndarray[Any, np.dtype[Any]]:
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def _bytes(images: np.ndarray[Any, np.dtype[Any]], name: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    if images.dtype == np.uint8:
        return images
    low, high = float(images.min()), float(images.max())
    if not np.issubdtype(images.dtype, np.floating) or not 0 <= low <= high <= 1:
        raise UnreadableDataError(
            f"the {name} images are {images.dtype} from {low:g} to {high:g}.",
            "Give uint8, or floats in [0, 1]; a model has its normalisation inside.",
        )
    rounded: np.ndarray[Any, np.dtype[np.uint8]] = np.rint(images * _WHITE).astype(np.uint8)
    return rounded
