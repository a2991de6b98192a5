from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from compressor.system import memory


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


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("CUDA out of memory."),
        RuntimeError("std::bad_alloc"),
        RuntimeError("Failed to allocate memory for requested buffer of size 1"),
        ValueError("Error parsing message with type 'onnx.ModelProto': Arena alloc failed"),
    ],
)
def test_a_lack_of_memory_is_told_apart_also_behind_another_error(error: Exception) -> None:
    assert memory.is_out_of_memory(error)
    with pytest.raises(ValueError, match="outer") as caught:
        raise ValueError("outer") from error
    assert memory.is_out_of_memory(caught.value)
    assert not memory.is_out_of_memory(ValueError("outer"))


_FAULTS = """
import ctypes, resource, sys
import numpy as np
from compressor.system.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        np.ones(1 << 26, dtype=np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before, kept = faults(), keep_freed_memory()
faults()
print(kept, before, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's way of freeing")
def test_memory_that_is_kept_is_not_mapped_anew() -> None:
    done = subprocess.run([sys.executable, "-c", _FAULTS], capture_output=True, text=True, check=True)
    kept, before, after = done.stdout.split()
    if kept == "False":
        pytest.skip("another C library")
    # 64 MB are 16,384 pages of 4 kB, touched for the first time in each of four rounds; huge pages make it fewer.
    assert int(before) > 100
    assert int(after) < int(before) / 10
