"""Reading files that anyone may have put there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from compressor.system import files
from compressor.system.files import read_regular


def test_a_file_and_a_link_to_it_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for name in ("file", "link"):
        assert read_regular(tmp_path / name, 3) == b"abc"
        assert read_regular(tmp_path / name, 2) is None


def test_a_pipe_a_device_and_a_folder_are_refused_and_nobody_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match="not a regular file"):
            read_regular(path, 100)


def test_a_pipe_that_takes_the_files_place_at_the_last_moment_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    os.mkfifo(tmp_path / "pipe")
    opened = os.open
    monkeypatch.setattr(files.os, "open", lambda path, flags: opened(tmp_path / "pipe", flags))
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(tmp_path / "file", 100)


@pytest.mark.parametrize("change", [b"abcdef", b""])
def test_a_file_that_changes_while_it_is_read(change: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    measured = os.fstat

    def then_it_changes(descriptor: int) -> os.stat_result:
        found = measured(descriptor)
        path.write_bytes(change)
        return found

    monkeypatch.setattr(files.os, "fstat", then_it_changes)
    with pytest.raises(OSError, match="changed while it was read"):
        read_regular(path, 100)


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "absent", 100)
