"""scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, enlarged: the real data that needs no download."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from compressor.core.contracts import Dataset, OpenDataset, Split
from compressor.core.errors import MissingPackageError
from compressor.data.sources._dataset import LazyDataset, refuse_argument
from compressor.data.sources._decoding import resize_arrays
from compressor.numerics.sampling import balanced_indices

_TEST_SAMPLES = 500
_WHITE = 16


def open_digits(argument: str, *, data_dir: Path | None, download: bool, image_size: int) -> Dataset:
    """Open the digits: 1,297 for training and 500 for the test, the same and class-balanced on every machine.

    Values 0 to 16 become 0 to 255, in three equal channels; bilinear enlargement. The pictures come with
    scikit-learn, so ``data_dir`` and ``download`` have no meaning here.

    Raises:
        UsageError: an argument was given.
        MissingPackageError: scikit-learn is not installed.
    """
    refuse_argument("digits", argument)
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingPackageError(
            "the dataset digits needs scikit-learn, which is not installed.", "pip install 'robust-compress[demo]'"
        ) from None
    bunch = load_digits()
    grey = np.rint(bunch.images * (255 / _WHITE)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    test = np.zeros(len(labels), dtype=bool)
    test[balanced_indices(labels, _TEST_SAMPLES, key=0)] = True

    def load(chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Split:
        colour = np.repeat(grey[chosen][:, None], 3, axis=1)
        return Split(np.concatenate(list(resize_arrays(colour, image_size))), labels[chosen])

    names = tuple(str(digit) for digit in range(10))
    return LazyDataset("digits", names, image_size, {"train": partial(load, ~test), "test": partial(load, test)})


DATASET: OpenDataset = open_digits
