from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.core.errors import MissingInputError, WriteError
from compressor.data.sources._cache import cached_images
from compressor.training.teaching.caches import CacheEntry, choose_removals, drop_damage, list_entries, remove_entries
from compressor.training.teaching.label_cache import open_label_cache
from compressor.training.teaching.label_file import LabelKey

KEY = LabelKey("wideresnet-16-4", "a" * 64, "none", "relu", "fp32", "digits", "b" * 64, 32, 7, 6, 5)
NAME = "digits-0123456789abcdef0123456789abcdef-16-12.0.npy"
DAY = 86_400.0


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make_labels(key: LabelKey = KEY, written: int = 21) -> Path:
    cache = open_label_cache(key, limit=10**6)
    positions = np.arange(written)
    cache.write(positions // 6, positions % 6, np.ones((written, 5), dtype=np.float16))
    return Path(os.environ["COMPRESS_CACHE_DIR"]) / "labels" / key.file_name


def make_decoded(name: str = NAME, pictures: int = 4) -> Path:
    cached_images(name, (pictures, 3, 16, 16), lambda: iter([np.zeros((pictures, 3, 16, 16), dtype=np.uint8)]))
    return Path(os.environ["COMPRESS_CACHE_DIR"]) / "decoded" / name


def entry(name: str, used: float = 0.0, size: int = 1) -> CacheEntry:
    return CacheEntry("decoded", Path(name), "pictures", None, size, size, used)


# ---- listing


def test_an_absent_folder_holds_nothing() -> None:
    assert list_entries() == []


def test_both_kinds_are_described_oldest_use_first() -> None:
    decoded, labels = make_decoded(), make_labels()
    os.utime(decoded, (1e9, 1e9))
    first, second = list_entries()
    assert (first.kind, first.path, first.last_used) == ("decoded", decoded, 1e9)
    assert first.holds == "digits: 4 pictures of 16 pixels"
    assert first.filled is None
    assert first.size == decoded.stat().st_size == 128 + 4 * 3 * 16 * 16
    assert (second.kind, second.path) == ("labels", labels)
    assert second.holds == "wideresnet-16-4's answers to digits at 32 pixels, fp32"
    assert second.filled == 0.5
    assert second.size == KEY.file_size
    assert {first.fault, second.fault} == {None}
    assert list_entries(kind="labels") == [second]


def test_sparse_files_are_told_by_what_they_take() -> None:
    key = dataclasses.replace(KEY, images=10_000)
    make_labels(key, written=0)
    (found,) = list_entries()
    assert found.size == key.file_size > 700_000
    assert found.disk_bytes < 50_000
    assert found.filled == 0


def test_listing_is_not_using() -> None:
    paths = [make_decoded(), make_labels()]
    for path in paths:
        os.utime(path, (1e9, 1e9))
    assert [found.last_used for found in list_entries()] == [1e9, 1e9]


def test_what_is_not_ours_is_left_alone(folder: Path) -> None:
    ours = {make_decoded(), make_labels()}
    for kind, suffix in (("labels", ".labels"), ("decoded", ".npy")):
        (folder / kind / "notes.txt").write_text("mine")
        (folder / kind / f"folder{suffix}").mkdir()
        (folder / kind / f"link{suffix}").symlink_to(next(iter(ours)))
        (folder / kind / os.fsdecode(b"\xff" + suffix.encode())).write_text("mine")
        os.mkfifo(folder / kind / f"pipe{suffix}")
    (folder / "array.npy").write_text("mine")
    assert {found.path for found in list_entries()} == ours


def test_temporary_files_are_leftovers_after_a_day(folder: Path) -> None:
    decoded, labels = make_decoded(), make_labels()
    hidden = [decoded.with_name(f".{NAME}.x1.npy"), labels.with_name(f".{labels.stem}.x2.labels")]
    for path in hidden:
        path.write_bytes(b"half")
    assert len(list_entries()) == 2
    for path in hidden:
        os.utime(path, (time.time() - 25 * 3600,) * 2)
    found = list_entries()[:2]
    assert {each.path for each in found} == set(hidden)
    assert {(each.holds, each.fault) for each in found} == {("left by a run that was killed", None)}
    assert [drop_damage(each) for each in found] == [0, 0]


def test_a_folder_that_cannot_be_read_is_an_error(folder: Path) -> None:
    folder.mkdir()
    (folder / "labels").write_text("a file")
    with pytest.raises(MissingInputError, match="cannot be read"):
        list_entries()


HEADERS = {
    "not an array": b"nonsense",
    "empty": b"",
    "huge": b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999999, 3, 16, 16)}",
    "overflow": b"{'descr': '|u1', 'fortran_order': False, 'shape': (4611686018427387904, 4, 4, 4)}",
    "negative": b"{'descr': '|u1', 'fortran_order': False, 'shape': (-4, -3, 16, 16)}",
    "objects": b"{'descr': '|O', 'fortran_order': False, 'shape': (4, 3, 16, 16)}",
    "nested": b"(" * 3000,
    "long number": b"{'descr': '|u1', 'fortran_order': False, 'shape': (" + b"9" * 5000 + b", 3, 16, 16)}",
    "words": b"{'descr': 'x', 'fortran_order': 'no', 'shape': 'big'}",
}


@pytest.mark.parametrize("damage", [*HEADERS, "short", "long", "dtype", "flat"])
def test_decoded_pictures_that_cannot_be_used_are_told(damage: str) -> None:
    path = make_decoded()
    good = path.read_bytes()
    if damage == "dtype":
        np.save(path, np.zeros((4, 3, 16, 16), dtype=np.int8))
    elif damage == "flat":
        np.save(path, np.zeros(4 * 3 * 16 * 16, dtype=np.uint8))
    elif damage in ("short", "long"):
        path.write_bytes(good[:-1] if damage == "short" else good + b"x")
    else:
        header = HEADERS[damage]
        is_array = damage not in ("empty", "not an array")
        path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header if is_array else header)
    (found,) = list_entries()
    assert found.fault
    assert found.holds == "unusable"
    assert drop_damage(found) == 0
    assert path.exists()


@pytest.mark.parametrize("damage", ["header", "length", "name"])
def test_label_files_that_cannot_be_used_are_told(damage: str) -> None:
    path = make_labels()
    content = path.read_bytes()
    if damage == "header":
        path.write_bytes(b"\0" + content[1:])
    elif damage == "length":
        path.write_bytes(content[:-1])
    else:
        path.rename(path.with_name("0" * 32 + ".labels"))
    (found,) = list_entries()
    assert found.fault
    assert found.filled is None
    assert drop_damage(found) == 0


# ---- checking


def test_damaged_records_are_dropped_and_counted() -> None:
    path = make_labels()
    with path.open("r+b") as file:
        file.seek(4096 + 5)
        file.write(b"\x77")
    (found,) = list_entries()
    assert drop_damage(found) == 1
    assert drop_damage(found) == 0
    (found,) = list_entries()
    assert found.filled == 20 / 42


def test_what_was_pruned_meanwhile_is_not_damaged() -> None:
    path = make_labels()
    (found,) = list_entries()
    path.unlink()
    assert drop_damage(found) == 0


def test_damage_that_cannot_be_dropped_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_labels()
    with path.open("r+b") as file:
        file.seek(4096 + 5)
        file.write(b"\x77")
    (found,) = list_entries()
    monkeypatch.setattr(os, "pwrite", lambda *arguments: 0)
    with pytest.raises(WriteError, match="cannot repair"):
        drop_damage(found)


# ---- pruning


def test_the_old_are_chosen_by_days() -> None:
    found = [entry("new", 10 * DAY), entry("old", 2 * DAY), entry("oldest", DAY), entry("edge", 3 * DAY)]
    chosen = choose_removals(found, now=10 * DAY, older_than_days=7)
    assert [each.path.name for each in chosen] == ["oldest", "old"]
    assert choose_removals(found, now=10 * DAY) == []


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 50)), max_size=12),
    st.integers(0, 300),
    st.none() | st.integers(0, 20),
)
def test_least_recently_used_goes_first_and_no_more_than_needed(
    files: list[tuple[int, int]], limit: int, days: int | None
) -> None:
    found = [entry(str(i), used * DAY, size) for i, (used, size) in enumerate(files)]
    chosen = choose_removals(found, now=20 * DAY, older_than_days=days, to_size=limit)
    stays = [each for each in found if each not in chosen]
    assert sum(each.disk_bytes for each in stays) <= limit
    assert all(a.last_used <= b.last_used for a in chosen for b in stays)
    assert all(days is None or 20 * DAY - each.last_used <= days * DAY for each in stays)
    if chosen and (days is None or 20 * DAY - chosen[-1].last_used <= days * DAY):
        assert sum(each.disk_bytes for each in [*stays, chosen[-1]]) > limit


def test_removal_takes_these_alone_and_open_files_stay_readable() -> None:
    decoded, labels = make_decoded(), make_labels()
    cache = open_label_cache(KEY, limit=10**6)
    remove_entries([found for found in list_entries() if found.kind == "labels"])
    assert decoded.exists()
    assert not labels.exists()
    assert cache.valid().sum() == 21
    remove_entries(list_entries())
    remove_entries([entry(str(decoded))])
    assert list_entries() == []


def test_a_file_that_cannot_be_removed_is_an_error(folder: Path) -> None:
    folder.mkdir()
    with pytest.raises(WriteError, match="cannot remove"):
        remove_entries([entry(str(folder))])
