from __future__ import annotations

import os
import tempfile
from pathlib import Path

import platformdirs
import pytest

from compressor.system.cache_folder import cache_folder, mark_used


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("COMPRESS_CACHE_DIR", "~/here")
    assert cache_folder() == Path.home() / "here"


@pytest.mark.parametrize("value", [None, ""])
def test_else_the_platform_does(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("COMPRESS_CACHE_DIR", raising=False)
    else:
        monkeypatch.setenv("COMPRESS_CACHE_DIR", value)
    assert cache_folder().name == "compress"
    assert cache_folder().is_absolute()


@pytest.mark.parametrize("home", [None, "~"])
def test_a_user_without_a_home_has_one_among_the_temporary_files(
    monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    def no_entry(*_: object) -> None:
        raise KeyError("no such user")

    for name in ("COMPRESS_CACHE_DIR", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr("pwd.getpwuid", no_entry)
    with pytest.raises(RuntimeError, match="home"):  # else this test shows nothing
        platformdirs.user_cache_path("compress")
    assert cache_folder() == Path(tempfile.gettempdir()) / "compress-cache"


def test_use_is_marked_and_an_absent_file_is_no_matter(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    os.utime(path, (0, 0))
    mark_used(path)
    assert path.stat().st_mtime > 1e9
    assert path.read_bytes() == b"content"
    mark_used(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
