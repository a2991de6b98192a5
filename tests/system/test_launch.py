"""What a launcher says, and what devices and threads make of it."""

from __future__ import annotations

import pytest

from compressor.system import launch
from compressor.system.devices import resolve_device
from compressor.system.threads import available_threads


def test_without_a_launcher_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (launch.rank(), launch.world_size(), launch.local_rank(), launch.local_world_size()) == (0, 1, None, 1)


def test_a_launcher_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert (launch.rank(), launch.world_size(), launch.local_rank(), launch.local_world_size()) == (5, 8, 1, 4)


@pytest.mark.parametrize("text", ["", "-1", "many", "1.5"])
def test_nonsense_counts_as_no_launcher(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", text)
    monkeypatch.setenv("LOCAL_RANK", text)
    assert launch.rank() == 0
    assert launch.local_rank() is None


def test_processes_of_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = available_threads()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert available_threads() == max(1, alone // 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4096")
    assert available_threads() == 1


def test_every_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setattr("torch.cuda.set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert str(resolve_device("auto")) == str(resolve_device("cuda")) == "cuda:3"
    assert [str(device) for device in chosen] == ["cuda:3", "cuda:3"]
    assert str(resolve_device("cuda:1")) == "cuda:1"  # asked for by number: as asked
