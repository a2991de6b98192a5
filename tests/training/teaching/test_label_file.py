from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compressor.training.teaching import label_file
from compressor.training.teaching.label_file import LabelFile, LabelKey, make_label_file, open_label_file

KEY = LabelKey("wideresnet-16-4", "a" * 64, "none", "relu", "fp32", "digits", "b" * 64, 32, 7, 6, 5)
RECORDS, RECORD_BYTES, HEADER = 42, 12, 4096
ALL = np.arange(RECORDS)


def make(tmp_path: Path, key: LabelKey = KEY) -> tuple[Path, LabelFile]:
    path = tmp_path / "labels" / key.file_name
    make_label_file(path, key)
    return path, open_label_file(path, key)


def answers(seed: int = 0, n: int = RECORDS, classes: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=4, size=(n, classes)).astype(np.float16)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


# ---- records


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, RECORDS - 1), st.lists(st.floats(width=16), min_size=5, max_size=5)), max_size=8)
)
def test_what_was_written_is_read_bit_for_bit_and_nothing_else_is_found(tmp_path: Path, writes: list) -> None:
    path, file = make(tmp_path)
    expected: dict[int, bytes] = {}
    for position, logits in writes:
        row = np.array([logits], dtype=np.float16)
        file.write(np.array([position]), row)
        expected[position] = row.tobytes()
    read, found = file.read(ALL)
    assert {int(i): read[i].tobytes() for i in np.flatnonzero(found)} == expected
    assert not read[~found].any()
    path.unlink()


def test_a_second_opening_sees_what_the_first_wrote_at_once(tmp_path: Path) -> None:
    path, file = make(tmp_path)
    other = open_label_file(path)
    file.write(ALL[:3], answers(n=3))
    read, found = other.read(ALL)
    assert found.tolist() == [True] * 3 + [False] * 39
    assert np.array_equal(read[:3], answers(n=3))


def test_every_changed_byte_makes_its_record_and_no_other_a_miss(tmp_path: Path) -> None:
    path, file = make(tmp_path)
    file.write(ALL, answers())
    for byte in range(RECORD_BYTES):
        offset = HEADER + 9 * RECORD_BYTES + byte
        before = path.read_bytes()[offset]
        for change in (1, 0x80, 0xFF, 0x5A):
            overwrite(path, offset, bytes([before ^ change]))
            assert np.flatnonzero(~file.read(ALL)[1]).tolist() == [9]
        overwrite(path, offset, bytes([before]))
        assert file.read(ALL)[1].all()


def test_no_change_within_one_byte_keeps_a_checksum() -> None:
    """By exhaustion over the words: the checksum is linear, so only the difference in one word counts."""
    words = np.arange(1 << 16)
    for shift in (0, 8):
        for change in range(1, 256):
            assert ((words ^ (change << shift)) % 65521 != words % 65521).all()


def test_the_checksum_is_what_the_format_says(tmp_path: Path) -> None:
    path, file = make(tmp_path)
    file.write(np.array([41]), answers(n=1))
    stored = np.frombuffer(path.read_bytes()[HEADER + 41 * RECORD_BYTES :], "<u2")
    words = [41, 0, 0, 0, *(int(w) for w in answers(n=1).view(np.uint16)[0])]
    assert stored[:-1].tolist() == words[4:]
    assert stored[-1] == 1 + sum(word * pow(17, power, 65521) for power, word in enumerate(words, 1)) % 65521


@pytest.mark.parametrize("distance", [1, 2, 5, 17])
def test_a_record_at_another_place_is_a_miss(tmp_path: Path, distance: int) -> None:
    path, file = make(tmp_path)
    file.write(np.array([3]), answers(n=1))
    start = HEADER + 3 * RECORD_BYTES
    overwrite(path, start + distance * RECORD_BYTES, path.read_bytes()[start : start + RECORD_BYTES])
    assert np.flatnonzero(file.read(ALL)[1]).tolist() == [3]


def test_far_positions_have_their_own_checksums() -> None:
    words = np.zeros((1, 5), dtype=np.uint16)
    far = [0, 65521, 65536, 65521 * 17, 1 << 32, 1 << 48]
    assert len({int(label_file._checksums(words, np.array([position]))[0]) for position in far}) == len(far)


@pytest.mark.parametrize("torn", range(1, RECORD_BYTES))
def test_a_record_that_was_written_in_part_is_a_miss(tmp_path: Path, torn: int) -> None:
    path, file = make(tmp_path)
    for before in (None, answers(seed=1)):
        if before is not None:
            file.write(ALL, before)
        old = path.read_bytes()
        file.write(np.array([8]), answers(n=1))
        offset = HEADER + 8 * RECORD_BYTES
        overwrite(path, offset + torn, old[offset + torn : offset + RECORD_BYTES])
        assert not file.read(np.array([8]))[1][0]


def test_damage_is_counted_and_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_file, "_BLOCK_WORDS", 5 * 6)
    path, file = make(tmp_path)
    file.write(ALL[::2], answers(n=21))
    for position in (0, 20, 40):
        overwrite(path, HEADER + position * RECORD_BYTES + 3, b"\x77")
    expected = np.zeros(RECORDS, dtype=bool)
    expected[::2] = True
    assert file.filled() == 0.5
    expected[[0, 20, 40]] = False
    assert np.array_equal(file.valid(), expected.reshape(7, 6))
    assert file.drop_damaged() == 3
    assert file.drop_damaged() == 0
    assert np.array_equal(file.valid(), expected.reshape(7, 6))
    assert file.filled() == 18 / 42


def test_a_sample_tells_how_full_a_large_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_file, "_SAMPLED_RECORDS", 500)
    _, file = make(tmp_path, dataclasses.replace(KEY, images=500))
    positions = np.arange(0, 3000, 6)  # one variant of each image
    file.write(positions, answers(n=500))
    assert abs(file.filled() - 1 / 6) < 0.05


def test_a_new_file_is_sparse(tmp_path: Path) -> None:
    key = dataclasses.replace(KEY, images=50_000, variants=162, classes=10)
    path, file = make(tmp_path, key)
    assert path.stat().st_size == 4096 + 50_000 * 162 * 11 * 2 == key.file_size
    assert file.disk_bytes <= 1 << 16
    file.write(np.array([8_099_999]), answers(n=1, classes=10))
    assert file.disk_bytes <= 1 << 17
    assert file.read(np.array([8_099_999]))[1].all()


def test_a_partial_write_is_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, file = make(tmp_path)
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: len(data) - 1)
    with pytest.raises(OSError, match="No space left"):
        file.write(ALL, answers())


def test_the_descriptor_is_closed_with_the_file(tmp_path: Path) -> None:
    path, file = make(tmp_path)
    descriptor = file._descriptor
    del file
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert open_label_file(path).key == KEY


# ---- header


@pytest.mark.parametrize("offset", [0, 15, 16, 19, 20, 24, 40, 300, 600, 4095])
def test_any_damage_to_the_header_is_seen(tmp_path: Path, offset: int) -> None:
    path, _ = make(tmp_path)
    overwrite(path, offset, bytes([path.read_bytes()[offset] ^ 1]))
    with pytest.raises(ValueError, match="header"):
        open_label_file(path, KEY)


@pytest.mark.parametrize(
    "content", [b"", b"compress.labels\n", bytes(4096), b"compress.labels\n" + bytes(4080), b"\xff" * 9000]
)
def test_other_files_are_refused_with_a_reason(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.labels"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"it |its "):
        open_label_file(path)


JSONS = ["[]", "1", "null", "{}", '{"teacher": 1}', "[" * 3000, '"\\ud800"', "\xff"]


@pytest.mark.parametrize("text", [*JSONS, "negative", "true", "surrogate", "huge"])
def test_a_key_that_makes_no_sense_is_refused(tmp_path: Path, text: str) -> None:
    values = dataclasses.asdict(KEY)
    changes = {
        "negative": {"images": -7, "variants": -6},
        "true": {"classes": True},
        "surrogate": {"teacher": "\ud800"},
        "huge": {"images": 10**30},
    }
    if text in changes:
        import json

        text = json.dumps(values | changes[text], sort_keys=True, separators=(",", ":"))
    raw = text.encode("latin-1")
    header = label_file._PREFIX.pack(b"compress.labels\n", 1, len(raw)) + raw
    path = tmp_path / "x.labels"
    path.write_bytes(header.ljust(4096, b"\0") + bytes(RECORDS * RECORD_BYTES))
    with pytest.raises(ValueError, match=r"."):
        open_label_file(path)


def test_a_file_of_another_length_is_refused(tmp_path: Path) -> None:
    path, _ = make(tmp_path)
    for change in (-1, 1):
        os.truncate(path, KEY.file_size + change)
        with pytest.raises(ValueError, match="bytes, not"):
            open_label_file(path, KEY)


def test_links_folders_and_pipes_are_not_opened(tmp_path: Path) -> None:
    path, _ = make(tmp_path)
    (tmp_path / "link.labels").symlink_to(path)
    (tmp_path / "folder.labels").mkdir()
    os.mkfifo(tmp_path / "pipe.labels")
    for name in ("link", "folder"):
        with pytest.raises(OSError, match=r"links|directory"):
            open_label_file(tmp_path / f"{name}.labels")
    with pytest.raises(ValueError, match="regular file"):
        open_label_file(tmp_path / "pipe.labels")


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(LabelKey)])
def test_each_part_of_the_key_gives_another_file(tmp_path: Path, field: str) -> None:
    value = getattr(KEY, field)
    other = dataclasses.replace(KEY, **{field: value + 1 if isinstance(value, int) else value + "x"})
    assert other.file_name != KEY.file_name
    path, _ = make(tmp_path)
    with pytest.raises(ValueError, match="another key's"):
        open_label_file(path, other)


def test_a_key_too_long_for_the_header_is_refused() -> None:
    with pytest.raises(ValueError, match="header"):
        dataclasses.replace(KEY, teacher="x" * 4096).header()


# ---- making


def test_the_first_maker_wins_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path, file = make(tmp_path)
    file.write(ALL[:1], answers(n=1))
    make_label_file(path, KEY)
    assert open_label_file(path).read(ALL[:1])[1].all()
    assert list(path.parent.iterdir()) == [path]
    make_label_file(path, KEY, replace=True)
    assert not open_label_file(path).read(ALL[:1])[1].any()
    assert list(path.parent.iterdir()) == [path]


def test_a_file_system_without_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path, file = make(tmp_path)
    assert len(file) == RECORDS
    assert list(path.parent.iterdir()) == [path]


WRITER = """
import sys
from pathlib import Path
import numpy as np
from compressor.training.teaching.label_file import open_label_file

file = open_label_file(Path(sys.argv[1]))
value, order = int(sys.argv[2]), np.random.default_rng(int(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    positions = order.permutation(len(file))
    file.write(positions, np.full((len(file), 5), value, dtype=np.float16))
    rows, found = file.read(positions)
    assert set(rows[found].ravel().tolist()) <= {1.0, 2.0}
"""


def test_two_processes_that_write_the_same_records_leave_each_whole(tmp_path: Path) -> None:
    path, file = make(tmp_path, dataclasses.replace(KEY, images=100))
    command = [sys.executable, "-c", WRITER, str(path)]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": env}
    with subprocess.Popen([*command, "1"], **pipes) as one, subprocess.Popen([*command, "2"], **pipes) as two:
        for writer in (one, two):
            assert writer.stdout.readline() == "ready\n"
        for writer in (one, two):
            writer.stdin.write("go\n")
            writer.stdin.flush()
        assert [one.wait(60), two.wait(60)] == [0, 0]
    rows, found = file.read(np.arange(600))
    assert found.all()
    assert ((rows == 1).all(axis=1) | (rows == 2).all(axis=1)).all()
