"""Seconds by part, and how they are shown."""

from __future__ import annotations

import pytest
import torch

from compressor.training import timing as stopwatch
from compressor.training.timing import PARTS, Stopwatch, profile

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands until the test moves it."""
    now = [100.0]
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now[0])
    return now


def test_parts_add_up_and_reset(clock: list[float]) -> None:
    watch = Stopwatch(CPU, profile=False)
    for seconds in (2.0, 1.0):
        with watch.part("attack"):
            clock[0] += seconds
    with watch.part("outer"):
        clock[0] += 1.0
    clock[0] += 50  # nobody's time
    assert watch.read() == {"data": 0, "teacher": 0, "attack": 3.0, "outer": 1.0, "logging": 0}
    assert watch.split() == "attack 75 %, outer 25 %"
    watch.reset()
    assert set(watch.read().values()) == {0.0}
    assert watch.split() == ""


def test_time_counts_where_the_part_fails(clock: list[float]) -> None:
    watch = Stopwatch(CPU, profile=False)

    def fail() -> None:
        with watch.part("data"):
            clock[0] += 4.0
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert watch.read()["data"] == 4.0


def test_a_gpu_is_exact_only_where_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    gpu = torch.device("cuda", 0)
    for wait in (False, True):
        watch = Stopwatch(gpu, profile=wait)
        with watch.part("outer"):
            pass
        assert watch.is_exact == wait
    assert len(waits) == 2


def test_the_profile_adds_up_epochs_and_what_is_unfinished() -> None:
    def parts(seconds: float) -> dict[str, float]:
        return dict.fromkeys(PARTS, seconds)

    timings = [{"epoch": 1, "seconds": 5.0}, {"epoch": 2, "seconds": 5.0, "parts": parts(1.0)}]
    found = profile(timings, parts(0.5) | {"attack": 3.0})
    assert found["seconds"] == parts(1.5) | {"attack": 4.0}
    assert found["fractions"]["attack"] == pytest.approx(0.4)
    assert sum(found["fractions"].values()) == pytest.approx(1.0)
    assert [epoch["epoch"] for epoch in found["epochs"]] == [2]


def test_a_profile_of_nothing_divides_by_nothing() -> None:
    assert set(profile([], dict.fromkeys(PARTS, 0.0))["fractions"].values()) == {0.0}
