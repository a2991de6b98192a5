from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from compressor.core.errors import MissingPackageError, UsageError
from compressor.data.sources.digits import DATASET


def open_digits(image_size: int = 32):
    return DATASET("", data_dir=None, download=False, image_size=image_size)


@pytest.fixture(scope="module")
def bunch():
    return pytest.importorskip("sklearn.datasets").load_digits()


def test_sizes_and_balance(bunch) -> None:
    dataset = open_digits()
    train, test = dataset.load("train"), dataset.load("test")
    assert train.images.shape == (1297, 3, 32, 32)
    assert test.images.shape == (500, 3, 32, 32)
    assert train.images.dtype == np.uint8
    assert np.bincount(test.labels).tolist() == [50] * 10
    assert dataset.class_names == tuple("0123456789")
    assert not dataset.has("validation")


def test_the_splits_part_the_source(bunch) -> None:
    # At its own size nothing is resampled: every source picture is found again, once.
    dataset = open_digits(8)
    parts = [dataset.load("train"), dataset.load("test")]
    found = sorted(
        (int(label), picture.tobytes())
        for part in parts
        for label, picture in zip(part.labels, part.images[:, 0], strict=True)
    )
    grey = np.rint(bunch.images * 255 / 16).astype(np.uint8)
    assert found == sorted((int(label), picture.tobytes()) for label, picture in zip(bunch.target, grey, strict=True))


def test_white_is_255_and_channels_are_equal(bunch) -> None:
    images = open_digits(8).load("train").images
    assert images.max() == 255
    assert images.min() == 0
    assert np.array_equal(images[:, 0], images[:, 1])
    assert np.array_equal(images[:, 0], images[:, 2])


def test_enlarging_keeps_the_mean(bunch) -> None:
    small, large = open_digits(8).load("test"), open_digits(32).load("test")
    assert np.array_equal(small.labels, large.labels)
    assert np.abs(small.images.mean((1, 2, 3)) - large.images.mean((1, 2, 3))).max() < 4


def test_two_openings_are_equal(bunch) -> None:
    assert np.array_equal(open_digits().load("test").images, open_digits().load("test").images)


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingPackageError, match="needs scikit-learn") as caught:
        open_digits()
    assert caught.value.hint == "pip install 'robust-compress[demo]'"


def test_an_argument_is_refused() -> None:
    with pytest.raises(UsageError, match="takes no argument"):
        DATASET("x", data_dir=Path("anywhere"), download=False, image_size=32)
