"""The state of an evaluation on disk: what is done is found again, and nothing else counts."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compressor.core.errors import MissingInputError, UsageError
from compressor.evaluation.store import BatchOutcome, BatchPosition, EvaluationStore, adversarial_images, discard_state

KEY, OTHER = "ab" * 32, "cd" * 32
COLUMNS = ["clean", "PGD", "AA"]
SHAPE = (3, 4, 5)
RNG = np.random.default_rng(0)


def entered(folder: Path | None, key: str = KEY, *, replace: bool = False) -> EvaluationStore:
    return EvaluationStore.enter(folder, key, columns=COLUMNS, samples=50, image_shape=SHAPE, replace=replace)


def outcome(broken: list[bool]) -> BatchOutcome:
    n = len(broken)
    pictures = RNG.random((sum(broken), *SHAPE), dtype=np.float32)
    return BatchOutcome(RNG.integers(-1, 9, n), np.array(broken), np.arange(n) == 0, pictures)


POSITIONS = np.array([4, 7, 11])
OUTCOME = outcome([True, False, True])
PLACE = BatchPosition(1, 0, 12)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state with one batch."""
    entered(tmp_path / "state").save(PLACE, POSITIONS, OUTCOME)
    return tmp_path / "state"


def test_a_batch_survives_the_disk(folder: Path) -> None:
    back = entered(folder).load(PLACE, POSITIONS)
    assert back is not None
    for name in ("predictions", "broken", "outside", "adversarial"):
        mine, theirs = getattr(OUTCOME, name), getattr(back, name)
        np.testing.assert_array_equal(theirs, mine)
        assert theirs.dtype == mine.dtype
    assert sorted(path.name for path in folder.iterdir()) == ["01.00.00000012.npz", "key.json"]


def test_a_batch_of_other_images_or_of_another_place_is_not_it(folder: Path) -> None:
    store = entered(folder)
    assert store.load(PLACE, POSITIONS + 1) is None
    assert store.load(PLACE, POSITIONS[:2]) is None
    assert store.load(PLACE._replace(stage=1), POSITIONS) is None


def test_what_another_evaluation_did_is_not_removed_unasked(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UsageError, match=r"1 finished batch\(es\) of another evaluation") as refused:
        entered(folder, OTHER)
    assert "another folder" in refused.value.hint
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_another_key_that_may_replace_begins_anew_and_removes_what_is_ours(folder: Path) -> None:
    (folder / ".01.00.00000012.npz.x1y2z3_w.npz").write_bytes(b"half written")
    assert entered(folder, OTHER, replace=True).load(PLACE, POSITIONS) is None
    assert [path.name for path in folder.iterdir()] == ["key.json"]
    assert entered(folder).load(PLACE, POSITIONS) is None


def test_what_a_kill_left_half_written_is_removed(folder: Path) -> None:
    (folder / ".01.00.00000012.npz.x1y2z3_w.npz").write_bytes(b"half written")
    assert entered(folder).load(PLACE, POSITIONS) is not None
    assert len(list(folder.iterdir())) == 2


def test_batches_without_their_key_belong_to_nothing(folder: Path) -> None:
    """As a kill leaves them while an older state is being removed."""
    (folder / "key.json").unlink()
    assert entered(folder).load(PLACE, POSITIONS) is None


@pytest.mark.parametrize("name", ["notes.txt", "01.00.00000012.npz.bak", "folder", ".git"])
def test_a_folder_with_anything_else_in_it_is_refused(folder: Path, name: str) -> None:
    (folder / name).mkdir()
    before = sorted(folder.iterdir())
    with pytest.raises(UsageError, match=f"holds {name}") as refused:
        entered(folder, OTHER)
    assert refused.value.hint
    assert sorted(folder.iterdir()) == before
    # Once it is ours, a stray file is no reason to lose what is done.
    assert entered(folder).load(PLACE, POSITIONS) is not None


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(UsageError, match="is a file"):
        entered(tmp_path / "state.json")


def test_a_batch_from_another_folder_is_foreign(folder: Path, tmp_path: Path) -> None:
    other = entered(tmp_path / "other", OTHER)
    (tmp_path / "other" / PLACE.file_name).write_bytes((folder / PLACE.file_name).read_bytes())
    assert other.load(PLACE, POSITIONS) is None


def changed(data: bytes, **arrays: np.ndarray) -> bytes:
    """The batch with other arrays in it, written as NumPy writes them."""
    with np.load(io.BytesIO(data)) as found:
        stored = {**found, **arrays}
    buffer = io.BytesIO()
    np.savez(buffer, **stored)
    return buffer.getvalue()


def bomb(data: bytes) -> bytes:
    """The batch with its pictures packed, and a thousand times as many."""
    buffer = io.BytesIO()
    with np.load(io.BytesIO(data)) as found:
        np.savez_compressed(buffer, **{**found, "adversarial": np.zeros((2000, *SHAPE), np.float32)})
    return buffer.getvalue()


def flipped(data: bytes) -> bytes:
    """The batch with one bit of a picture turned over."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        at = archive.getinfo("adversarial.npy").header_offset + 300
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-30],
        lambda data: data[: len(data) // 2],
        flipped,
        bomb,
        lambda data: changed(data, broken=np.array([True, True, True])),
        lambda data: changed(data, broken=np.array([1, 0, 1])),
        lambda data: changed(data, predictions=np.array([0, 1])),
        lambda data: changed(data, predictions=np.array([0.0, 1.0, 2.0])),
        lambda data: changed(data, positions=np.array(4)),
        lambda data: changed(data, adversarial=np.zeros((2, 3, 4, 6), np.float32)),
        lambda data: changed(data, adversarial=np.zeros((2, *SHAPE))),
        lambda data: changed(data, outside=np.array([None, None, None])),
    ],
)
def test_a_damaged_batch_counts_for_nothing(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    file = folder / PLACE.file_name
    file.write_bytes(damage(file.read_bytes()))
    store = entered(folder)
    assert store.load(PLACE, POSITIONS) is None
    assert len(adversarial_images(folder, "PGD")[0]) == 0
    store.save(PLACE, POSITIONS, OUTCOME)
    assert store.load(PLACE, POSITIONS) is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d | {"schema": "compress.evaluation-state/1"},
        lambda d: d | {"key": "../../etc"},
        lambda d: d | {"image_shape": [3, 4]},
        lambda d: d | {"image_shape": [3, 4, -5]},
        lambda d: d | {"columns": "clean"},
        lambda d: [d],
    ],
)
def test_a_damaged_key_is_no_key(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    file = folder / "key.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(MissingInputError, match="not the state"):
        adversarial_images(folder, "PGD")
    assert entered(folder).load(PLACE, POSITIONS) is None


def test_adversarial_images_come_from_all_stages_in_the_order_of_the_images(folder: Path) -> None:
    store = entered(folder)
    first, second, none = outcome([False, True]), outcome([True]), outcome([False])
    store.save(BatchPosition(2, 0, 0), np.array([20, 30]), first)
    store.save(BatchPosition(2, 1, 0), np.array([20]), second)
    store.save(BatchPosition(2, 1, 128), np.array([49]), none)
    positions, images = adversarial_images(folder, "AA")
    assert positions.tolist() == [20, 30]
    np.testing.assert_array_equal(images, np.concatenate([second.adversarial, first.adversarial]))
    positions, images = adversarial_images(folder, "PGD")
    assert positions.tolist() == [4, 11]
    np.testing.assert_array_equal(images, OUTCOME.adversarial)
    positions, images = adversarial_images(folder, "clean")
    assert positions.shape == (0,)
    assert images.shape == (0, *SHAPE)
    with pytest.raises(MissingInputError, match="clean, PGD, AA"):
        adversarial_images(folder, "CW")


def test_a_column_takes_as_much_disk_as_the_module_says(folder: Path) -> None:
    store = entered(folder)
    before = (folder / PLACE.file_name).stat().st_size
    place = PLACE._replace(start=500)
    store.save(place, np.arange(3), outcome([True, True, True]))
    assert (folder / place.file_name).stat().st_size == before + 4 * np.prod(SHAPE)


def test_a_state_is_discarded_without_a_stranger(folder: Path) -> None:
    (folder / "mine.txt").write_text("")
    discard_state(folder)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]
    (folder / "mine.txt").unlink()
    entered(folder)
    discard_state(folder)
    assert not folder.exists()
    discard_state(folder)


def test_in_memory_it_touches_no_file() -> None:
    store = entered(None)
    store.save(PLACE, POSITIONS, OUTCOME)
    assert store.load(PLACE, POSITIONS) is None
