from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from compressor.core.contracts import Split
from compressor.core.errors import UnknownNameError, UsageError, WriteError
from compressor.core.types import DatasetSpec
from compressor.data import datasets

DIGEST = hashlib.sha256(b"any").hexdigest()


def make_split(counts: tuple[int, ...] = (8, 8, 8)) -> Split:
    """Pictures that each say, in their first pixel, which sample they are."""
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)
    images = np.zeros((len(labels), 3, 8, 8), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(len(labels))
    return Split(images, labels)


def positions(split: Split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()


class MadeUp:
    name = "made-up"
    class_names = ("a", "b", "c")
    image_size = 8

    def __init__(self, **splits: Split) -> None:
        self.splits = splits

    def has(self, split: str) -> bool:
        return split in self.splits

    def load(self, split: str) -> Split:
        return self.splits[split]


# ---- opening


def test_opens_by_name() -> None:
    pytest.importorskip("sklearn")
    dataset = datasets.open_dataset(DatasetSpec.parse("digits"), image_size=16)
    assert dataset.name == "digits"
    assert dataset.load("test").images.shape[1:] == (3, 16, 16)


def test_an_unknown_name_suggests_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="no dataset 'cifar11'") as caught:
        datasets.open_dataset(DatasetSpec.parse("cifar11"))
    assert "cifar10" in caught.value.hint


@pytest.mark.parametrize("size", [-1, 0, 7, 1025])
def test_sizes_out_of_range(size: int) -> None:
    with pytest.raises(UsageError, match="image size"):
        datasets.open_dataset(DatasetSpec("digits"), image_size=size)


# ---- parting


def test_a_validation_split_is_carved_out() -> None:
    whole = make_split()
    train, validation = datasets.training_splits(MadeUp(train=whole), 6, seed=0)
    assert sorted(positions(train) + positions(validation)) == list(range(24))
    assert positions(train) == sorted(positions(train))
    assert positions(validation) == sorted(positions(validation))
    assert np.bincount(validation.labels).tolist() == [2, 2, 2]
    assert np.array_equal(whole.labels[positions(validation)], validation.labels)
    assert np.array_equal(whole.labels[positions(train)], train.labels)


def test_carving_is_fixed_by_the_seed() -> None:
    carved = [positions(datasets.carve_validation(make_split(), 6, seed, 3)[1]) for seed in (0, 0, 1)]
    assert carved[0] == carved[1]
    assert carved[0] != carved[2]


def test_a_given_validation_split_wins() -> None:
    train, given = make_split(), make_split((1, 1))
    assert datasets.training_splits(MadeUp(train=train, validation=given), 6, seed=0) == (train, given)


def test_carving_nothing() -> None:
    train, validation = datasets.carve_validation(make_split(), 0, 0, 3)
    assert (len(train), len(validation)) == (24, 0)
    assert validation.images.shape == (0, 3, 8, 8)


@pytest.mark.parametrize("n", [-1, 22, 24, 100])
def test_carving_too_much(n: int) -> None:
    with pytest.raises(UsageError, match="validation samples"):
        datasets.carve_validation(make_split(), n, 0, 3)


def test_a_class_without_samples_does_not_forbid_carving() -> None:
    assert len(datasets.carve_validation(make_split((8, 0, 8)), 4, 0, 3)[1]) == 4


# ---- taking


def test_a_balanced_part_in_the_original_order() -> None:
    part = datasets.take_balanced(make_split((20, 4, 20)), 15, seed=0)
    assert np.bincount(part.labels).tolist() in ([6, 4, 5], [5, 4, 6])
    assert positions(part) == sorted(positions(part))
    assert positions(part) == datasets.subset_indices(make_split((20, 4, 20)).labels, 15, 0).tolist()
    assert positions(part) != positions(datasets.take_balanced(make_split((20, 4, 20)), 15, seed=1))


def test_more_than_there_are_is_all() -> None:
    split = make_split()
    assert datasets.take_balanced(split, 24, 0) is split
    assert datasets.take_balanced(split, 1000, 0) is split


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(UsageError, match="is empty"):
        datasets.take_balanced(make_split(), 0, 0)


def test_taking_what_does_not_fit_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(datasets, "fits_in_memory", lambda size: False)
    monkeypatch.setattr(datasets, "_CHUNK_BYTES", 500)
    split = make_split()
    indices = np.array([5, 3, 3, 23, 0])
    part = datasets.take(split, indices)
    assert isinstance(part.images, np.memmap)
    assert np.array_equal(part.images, split.images[indices])
    assert np.array_equal(part.labels, split.labels[indices])
    assert not list(tmp_path.iterdir())


def test_taking_to_a_disk_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(tmp_path / "absent"))
    monkeypatch.setattr(datasets, "fits_in_memory", lambda size: False)
    with pytest.raises(WriteError, match="cannot write 192 bytes"):
        datasets.take(make_split(), np.array([0]))


# ---- the digest


def digest_by_the_book(split: Split, names: list[str]) -> str:
    header = json.dumps({"class_names": names, "shape": list(split.images.shape)}, separators=(",", ":"))
    content = b"compress.split/1\n" + header.encode() + b"\n" + split.images.tobytes()
    for label in split.labels:
        content += int(label).to_bytes(8, "little")
    return hashlib.sha256(content).hexdigest()


def test_the_digest_is_the_documented_one(monkeypatch: pytest.MonkeyPatch) -> None:
    split = make_split()
    expected = digest_by_the_book(split, ["a", "b", "c"])
    assert datasets.split_digest(MadeUp(test=split), "test") == expected
    monkeypatch.setattr(datasets, "_CHUNK_BYTES", 1)
    assert datasets.split_digest(MadeUp(test=split), "test") == expected


def test_the_digest_knows_no_memory_layout() -> None:
    split = make_split()
    turned = Split(np.asfortranarray(split.images), split.labels)
    assert datasets.digest(turned, "abc") == datasets.digest(split, "abc")


def test_anything_changed_changes_the_digest() -> None:
    split = make_split()
    pixel = Split(split.images.copy(), split.labels)
    pixel.images[-1, -1, -1, -1] ^= 1
    label = Split(split.images, split.labels.copy())
    label.labels[-1] ^= 1
    shape = Split(split.images.reshape(24, 3, 4, 16), split.labels)
    digests = {datasets.digest(part, "abc") for part in (split, pixel, label, shape)}
    assert len(digests | {datasets.digest(split, "abd")}) == 5


# ---- the draw


def test_the_draw_is_the_documented_one() -> None:
    keys = [
        (hashlib.sha256(b"compress.draw/1" + bytes.fromhex(DIGEST) + i.to_bytes(8, "big")).hexdigest(), i)
        for i in range(300)
    ]
    assert datasets.draw(DIGEST, total=300, n=20).tolist() == [i for _, i in sorted(keys)[:20]]


def test_a_draw_is_without_replacement_and_begins_a_longer_one() -> None:
    everything = datasets.draw(DIGEST, total=100, n=100)
    assert sorted(everything) == list(range(100))
    assert np.array_equal(datasets.draw(DIGEST, total=100, n=7), everything[:7])
    assert datasets.draw(DIGEST, total=0, n=0).shape == (0,)


def test_another_digest_draws_others() -> None:
    other = hashlib.sha256(b"other").hexdigest()
    assert not np.array_equal(datasets.draw(DIGEST, total=1000, n=20), datasets.draw(other, total=1000, n=20))


def test_a_draw_is_uniform() -> None:
    drawn = [
        datasets.draw(hashlib.sha256(bytes([i, j])).hexdigest(), total=20, n=5) for i in range(40) for j in range(50)
    ]
    times = np.bincount(np.concatenate(drawn), minlength=20)
    assert np.abs(times - 500).max() < 4.5 * np.sqrt(500 * 0.75)


@pytest.mark.parametrize(("total", "n"), [(5, 6), (5, -1)])
def test_a_draw_of_more_than_there_are(total: int, n: int) -> None:
    with pytest.raises(UsageError, match="cannot be drawn"):
        datasets.draw(DIGEST, total=total, n=n)


@pytest.mark.parametrize("digest", ["", "zz", DIGEST[:-1], DIGEST + "00"])
def test_a_draw_by_something_else_than_a_digest(digest: str) -> None:
    with pytest.raises(UsageError, match="not a SHA-256 digest"):
        datasets.draw(digest, total=5, n=1)
