"""Threads follow the container's quota, in both spellings that Linux has for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.system import threads


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_quota(files: dict[str, str], cores: float | None, tmp_path: Path) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert threads.cgroup_cores(tmp_path) == cores


def test_at_least_one_and_whole_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_CGROUP", tmp_path)
    unlimited = threads.available_threads()
    (tmp_path / "cpu.max").write_text("50000 100000")
    assert threads.available_threads() == 1
    (tmp_path / "cpu.max").write_text("99900000 100000")
    assert threads.available_threads() == unlimited
