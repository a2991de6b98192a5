"""Real processes, over gloo or killed: they share the work out and go on, and their report is that of one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("evaluation_script.py")


Answer = dict[str, Any]


def run(size: int, folder: Path, *options: str, expected: int = 0) -> list[list[Answer]]:
    """Start so many processes, and return what each said of each of its jobs; all are to end with one code."""
    folder.mkdir(exist_ok=True)
    meeting = folder / f"meeting{len(list(folder.iterdir()))}"
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(rank), str(size), str(meeting), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=SCRIPT.parents[2],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for rank in range(size)
    ]
    try:
        outcomes = [(*process.communicate(timeout=120), process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    failed = [f"{code}: {error}" for _, error, code in outcomes if code != expected]
    assert not failed, "\n".join(failed)
    return [[json.loads(line) for line in out.splitlines()] for out, *_ in outcomes]


# Starting a process takes longer than its jobs, so each does several: two modes, and a batch that holds all images.
JOBS = ("--mode", "alone", "{}", "--then", "--mode", "cascade", "{}", "--then", "--batch-size", "50", "--soundness")


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> list[Answer]:
    """What one process says of each job."""
    (answers,) = run(1, tmp_path_factory.mktemp("one"), *(option for option in JOBS if option != "{}"))
    return answers


@pytest.fixture(scope="module")
def alone(one: list[Answer]) -> Answer:
    bits = one[0]["bits"]
    assert 0 < sum(bits["A"]) < sum(bits["clean"]) < 50
    return one[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def two(folder: Path) -> list[list[Answer]]:
    """What each of two processes says; the states of the first two jobs stay in the folder."""
    states = iter([f"--state={folder / 'alone'}", f"--state={folder / 'cascade'}"])
    return run(2, folder / "meetings", *(next(states) if option == "{}" else option for option in JOBS))


def same(a: Answer, b: Answer) -> bool:
    return bool(a["report"] == b["report"] and a["bits"] == b["bits"] and a["said"] == b["said"])


@pytest.mark.parametrize(("job", "mode"), [(0, "alone"), (1, "cascade")])
def test_two_processes_share_the_work_and_agree_with_one(
    job: int, mode: str, one: list[Answer], two: list[list[Answer]], folder: Path
) -> None:
    for answer in (answers[job] for answers in two):
        assert answer["report"]["mode"] == mode
        assert same(answer, one[job])
        # Half of the batches each, and the few that the twin was checked with.
        assert answer["forwards"] < 0.7 * one[job]["forwards"]
        for name in answer["bits"]:
            done = [call[1:] for call in answer["calls"] if call[0] == name]
            assert done[-1][0] == done[-1][1]
            assert done == sorted(done)
    assert all(path.suffix == ".npz" or path.name == "key.json" for path in (folder / mode).iterdir())


def test_more_processes_than_batches_and_alarms_told_to_all(one: list[Answer], two: list[list[Answer]]) -> None:
    """The second does nothing but wait for the first, which alone looks for alarms."""
    first, second = (answers[2] for answers in two)
    assert one[2]["report"]["alarms"], "two steps are too few for this model"
    assert same(first, one[2])
    assert same(second, one[2])
    assert second["forwards"] == 0


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_killed_and_resumed_by_another_number(before: int, after: int, alone: Answer, tmp_path: Path) -> None:
    state = tmp_path / "state"
    run(before, tmp_path / "meetings", "--state", str(state), "--kill-after", "11", expected=-signal.SIGKILL)
    written = {path: path.stat().st_mtime_ns for path in state.iterdir() if not path.name.startswith(".")}
    for (answer,) in run(after, tmp_path / "meetings", "--state", str(state)):
        assert same(answer, alone)
        assert next(call for call in answer["calls"] if call[0] == "clean")[1] == 50
    assert len(written) >= 11
    assert all(path.stat().st_mtime_ns == when for path, when in written.items()), "what is done is not done again"


def test_killed_again_and_again_at_random_moments(alone: Answer, tmp_path: Path) -> None:
    state = tmp_path / "state"
    ((answer,),) = run(1, tmp_path / "meetings", "--state", str(state), "--kills", "10")
    assert same(answer, alone)
    # Kills came while batches were being written, and cost none that was done. (On a busy machine the last may come
    # too late.)
    assert answer["files"] == sorted(answer["files"])
    assert 0 < answer["files"][0] < len(list(state.glob("[0-9]*.npz"))) == 33
    assert len(list(state.iterdir())) == 34, "the key, and nothing half written"
