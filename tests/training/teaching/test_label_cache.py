from __future__ import annotations

import dataclasses
import errno
import io
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from compressor.core.errors import UsageError
from compressor.training.teaching import label_cache
from compressor.training.teaching.label_cache import LabelCache, LabelView, open_label_cache, round_labels
from compressor.training.teaching.label_file import LabelKey

KEY = LabelKey("wideresnet-16-4", "a" * 64, "none", "relu", "fp32", "digits", "b" * 64, 32, 7, 6, 5)
INDEX, VARIANT = np.array([6, 0, 3]), np.array([5, 0, 2])
LIMIT = 10**6


def answers(seed: int = 0, n: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=4, size=(n, 5)).astype(np.float16)


@pytest.fixture
def cache(tmp_path: Path) -> LabelCache:
    opened = open_label_cache(KEY, limit=LIMIT, folder=tmp_path)
    assert opened is not None
    return opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels" / KEY.file_name


@pytest.fixture(autouse=True)
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "compressor.training")
    return caplog


def test_answers_come_back_bit_for_bit_by_index_and_variant(cache: LabelCache, tmp_path: Path) -> None:
    cache.write(INDEX, VARIANT, answers())
    again = open_label_cache(KEY, limit=LIMIT, folder=tmp_path)
    for reader in (cache, again):
        logits, found = reader.read(INDEX, VARIANT)
        assert logits.dtype == np.float16
        assert logits.tobytes() == answers().tobytes()
        assert found.all()
        logits, found = reader.read(VARIANT, np.array([4, 1, 3]))
        assert not found.any()
        assert not logits.any()
    expected = np.zeros((7, 6), dtype=bool)
    expected[INDEX, VARIANT] = True
    assert np.array_equal(cache.valid(), expected)


def test_no_samples_are_no_trouble(cache: LabelCache) -> None:
    nothing = np.array([], dtype=np.int64)
    cache.write(nothing, nothing, answers(n=0))
    assert cache.read(nothing, nothing)[0].shape == (0, 5)


@pytest.mark.parametrize(("index", "variant"), [(7, 0), (-1, 0), (0, 6), (0, -1)])
def test_positions_outside_are_errors_not_other_samples(cache: LabelCache, index: int, variant: int) -> None:
    place = np.array([index]), np.array([variant])
    with pytest.raises(IndexError):
        cache.read(*place)
    with pytest.raises(IndexError):
        cache.write(*place, answers(n=1))


@pytest.mark.parametrize("logits", [answers().astype(np.float32), answers()[:, :4], answers(n=2)])
def test_logits_of_another_type_or_shape_are_errors(cache: LabelCache, logits: np.ndarray) -> None:
    with pytest.raises(ValueError, match="logits are"):
        cache.write(INDEX, VARIANT, logits)


def test_the_first_answer_stays(cache: LabelCache) -> None:
    cache.write(INDEX[:2], VARIANT[:2], answers()[:2])
    cache.write(INDEX, VARIANT, answers(seed=1))
    logits, _ = cache.read(INDEX, VARIANT)
    assert np.array_equal(logits, np.concatenate([answers()[:2], answers(seed=1)[2:]]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_answers_that_are_not_finite_are_not_kept(cache: LabelCache, value: float) -> None:
    logits = answers()
    logits[1, 4] = value
    cache.write(INDEX, VARIANT, logits)
    assert cache.read(INDEX, VARIANT)[1].tolist() == [True, False, True]


# ---- opening


def test_the_limit_is_for_the_full_file(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    assert open_label_cache(KEY, limit=KEY.file_size - 1, folder=tmp_path) is None
    assert "more than the limit of 4.6 kB" in said.text
    assert not list(tmp_path.iterdir())
    assert open_label_cache(KEY, limit=KEY.file_size, folder=tmp_path) is not None


def test_zero_switches_it_off_without_a_word(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    assert open_label_cache(KEY, limit=0, folder=tmp_path) is None
    assert not said.text


def test_the_platforms_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(tmp_path))
    assert open_label_cache(KEY, limit=LIMIT) is not None
    assert path.is_file()


@pytest.mark.parametrize("obstacle", ["file", "folder", "link"])
def test_what_stands_in_the_way_is_said_and_left(
    tmp_path: Path, path: Path, obstacle: str, said: pytest.LogCaptureFixture
) -> None:
    if obstacle == "file":
        (tmp_path / "labels").write_text("a file where the folder should be")
    else:
        path.parent.mkdir()
        path.symlink_to(tmp_path / "elsewhere") if obstacle == "link" else path.mkdir()
    assert open_label_cache(KEY, limit=LIMIT, folder=tmp_path) is None
    assert "are not kept" in said.text
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_said(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o500)
    assert open_label_cache(KEY, limit=LIMIT, folder=tmp_path) is None
    assert "Permission denied" in said.text
    tmp_path.chmod(0o700)


def test_a_read_only_file_system_is_said(
    tmp_path: Path, said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    assert open_label_cache(KEY, limit=LIMIT, folder=tmp_path) is None
    assert "Read-only file system" in said.text


@pytest.mark.parametrize("damage", ["header", "length", "foreign"])
def test_a_file_that_cannot_be_used_is_replaced_and_said(
    tmp_path: Path, cache: LabelCache, path: Path, damage: str, said: pytest.LogCaptureFixture
) -> None:
    cache.write(INDEX, VARIANT, answers())
    content = path.read_bytes()
    damaged = {"header": b"C" + content[1:], "length": content[:-1], "foreign": b"anything"}[damage]
    path.unlink()  # the map of the open cache keeps the old file
    path.write_bytes(damaged)
    again = open_label_cache(KEY, limit=LIMIT, folder=tmp_path)
    assert not again.valid().any()
    assert "cannot be used" in said.text
    again.write(INDEX, VARIANT, answers(seed=1))
    assert open_label_cache(KEY, limit=LIMIT, folder=tmp_path).valid().sum() == 3
    assert cache.read(INDEX, VARIANT)[1].all()


def test_opening_sets_the_time_of_last_use(tmp_path: Path, cache: LabelCache, path: Path) -> None:
    os.utime(path, (0, 0))
    open_label_cache(KEY, limit=LIMIT, folder=tmp_path)
    assert path.stat().st_mtime > 1e9


# ---- disk


def test_a_full_disk_is_said_once_and_reading_goes_on(
    cache: LabelCache, said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    cache.write(INDEX[:1], VARIANT[:1], answers(n=1))
    monkeypatch.setattr(os, "pwrite", refuse)
    for _ in range(3):
        cache.write(INDEX, VARIANT, answers())
    assert said.text.count("No space left on device") == 1
    assert cache.read(INDEX, VARIANT)[1].tolist() == [True, False, False]


def test_the_last_of_a_disk_is_left_to_the_run(
    tmp_path: Path, path: Path, said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = label_cache.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(label_cache.shutil, "disk_usage", lambda folder: usage._replace(free=100))
    key = dataclasses.replace(KEY, images=10_000)
    cache = open_label_cache(key, limit=10**7, folder=tmp_path)
    assert "100 B are free" in said.text
    cache.write(INDEX, VARIANT, answers())
    assert not cache.read(INDEX, VARIANT)[1].any()


# ---- rounding


@given(stn.arrays(np.float32, (3, 5), elements=st.floats(width=32, allow_nan=False)))
def test_a_miss_and_a_later_hit_have_the_same_bits(logits: np.ndarray) -> None:
    rounded = round_labels(torch.from_numpy(logits))
    assert rounded.dtype == torch.float32
    assert torch.isfinite(rounded).all()
    kept = rounded.numpy().astype(np.float16)
    assert kept.astype(np.float32).tobytes() == rounded.numpy().tobytes()
    with np.errstate(over="ignore"):
        expected = logits.astype(np.float16)
    within = np.isfinite(expected)
    assert np.array_equal(kept[within], expected[within])
    assert (np.abs(kept[~within]) == 65504).all()


def test_rounding_hides_no_nan() -> None:
    assert round_labels(torch.tensor([float("nan")])).isnan().all()


# ---- view


@given(stn.arrays(np.bool_, stn.array_shapes(min_dims=2, max_dims=2, max_side=30)))
def test_a_view_comes_back_from_a_saved_state(known: np.ndarray) -> None:
    packed = LabelView(known).pack()
    assert np.array_equal(LabelView.unpack(packed, known.shape).known, known)
    assert LabelView.unpack(packed, known.shape).pack() == packed


def test_a_packed_view_can_be_in_the_runs_state() -> None:
    packed = LabelView(np.eye(4, dtype=bool)).pack()
    buffer = io.BytesIO()
    torch.save({"view": packed}, buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=True) == {"view": packed}


PACKED = LabelView(np.ones((7, 6), dtype=bool)).pack()


@pytest.mark.parametrize(
    ("packed", "shape"),
    [(b"", (7, 6)), (b"nonsense", (7, 6)), (PACKED[:-1], (7, 6)), (PACKED, (7, 9)), (PACKED, (3, 6))],
)
def test_a_damaged_view_is_refused(packed: bytes, shape: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="damaged"):
        LabelView.unpack(packed, shape)


def test_a_view_that_would_unpack_to_much_more_is_not_unpacked() -> None:
    import tracemalloc
    import zlib

    bomb = zlib.compress(bytes(50_000_000))
    tracemalloc.start()
    with pytest.raises(UsageError):
        LabelView.unpack(bomb, (7, 6))
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_a_view_does_not_see_what_others_write_until_it_is_told(cache: LabelCache, tmp_path: Path) -> None:
    cache.write(INDEX[:1], VARIANT[:1], answers(n=1))
    view = LabelView.fresh(cache)
    open_label_cache(KEY, limit=LIMIT, folder=tmp_path).write(INDEX, VARIANT, answers())
    assert view.knows(INDEX, VARIANT).tolist() == [True, False, False]
    view.add(INDEX[1:2], VARIANT[1:2])
    assert view.knows(INDEX, VARIANT).tolist() == [True, True, False]
    assert view.known.sum() == 2
