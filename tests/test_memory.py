from __future__ import annotations

from pathlib import Path

import pytest

from compressor import memory


def write_cgroup(folder: Path, limit: str, used: int, cached: int) -> None:
    (folder / "memory.max").write_text(limit)
    (folder / "memory.current").write_text(str(used))
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")


def test_this_machine_has_some_memory() -> None:
    assert 1 << 20 < memory.free_memory() < 1 << 50


def test_available_memory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    4 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "absent")
    assert memory.free_memory() == 4096
    assert memory.fits_in_memory(2048)
    assert not memory.fits_in_memory(2049)


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    write_cgroup(tmp_path, "1000", used=900, cached=300)
    assert memory.free_memory() == 400


def test_no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    write_cgroup(tmp_path, "max\n", used=900, cached=300)
    assert memory.free_memory() > 1 << 20


def test_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "absent")
    assert memory.free_memory() > 1 << 20
