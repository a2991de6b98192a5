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


def run(size: int, folder: Path, *options: str, expected: int = 0) -> list[dict[str, Any]]:
    """Start so many processes, and return what each said; all are to end with one code."""
    folder.mkdir(exist_ok=True)
    meeting = folder / f"meeting{len(list(folder.iterdir()))}"
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                str(SCRIPT),
                "--rank",
                str(rank),
                "--size",
                str(size),
                "--meeting",
                str(meeting),
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=SCRIPT.parents[1],
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
    return [json.loads(out) for out, *_ in outcomes if expected == 0]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    (answer,) = run(1, tmp_path_factory.mktemp("alone"))
    bits = answer["bits"]
    assert 0 < sum(bits["A"]) < sum(bits["clean"]) < 50
    return answer


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return bool(a["report"] == b["report"] and a["bits"] == b["bits"] and a["said"] == b["said"])


@pytest.mark.parametrize("mode", ["alone", "cascade"])
def test_two_processes_share_the_work_and_agree_with_one(mode: str, alone: dict[str, Any], tmp_path: Path) -> None:
    (expected,) = [alone] if mode == "alone" else run(1, tmp_path / "one", "--mode", mode)
    state = tmp_path / "state"
    answers = run(2, tmp_path / "meetings", "--mode", mode, "--state", str(state))
    for answer in answers:
        assert same(answer, expected)
        # Half of the batches each, and the few that the twin was checked with.
        assert answer["forwards"] < 0.7 * expected["forwards"]
        for name in answer["bits"]:
            done = [call[1:] for call in answer["calls"] if call[0] == name]
            assert done[-1][0] == done[-1][1]
            assert done == sorted(done)
    assert [path.name for path in tmp_path.glob("state*")] == ["state"]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_killed_and_resumed_by_another_number(before: int, after: int, alone: dict[str, Any], tmp_path: Path) -> None:
    state = tmp_path / "state"
    run(before, tmp_path / "meetings", "--state", str(state), "--kill-after", "11", expected=-signal.SIGKILL)
    written = {path: path.stat().st_mtime_ns for path in state.iterdir() if not path.name.startswith(".")}
    answers = run(after, tmp_path / "meetings", "--state", str(state))
    for answer in answers:
        assert same(answer, alone)
        assert next(call for call in answer["calls"] if call[0] == "clean")[1] == 50
    assert len(written) >= 11
    assert all(path.stat().st_mtime_ns == when for path, when in written.items()), "what is done is not done again"


def test_killed_again_and_again_at_random_moments(alone: dict[str, Any], tmp_path: Path) -> None:
    state = tmp_path / "state"
    (answer,) = run(1, tmp_path / "meetings", "--state", str(state), "--kills", "10")
    assert same(answer, alone)
    # Each kill came while batches were being written, and cost no batch but the one under way.
    assert answer["files"] == sorted(set(answer["files"]))
    assert 0 < answer["files"][0] < answer["files"][-1] < len(list(state.glob("*.npz"))) == 33
    assert sorted(path.name for path in state.iterdir() if path.suffix != ".npz") == ["key.json"]


def test_more_processes_than_batches_and_alarms_told_to_all(tmp_path: Path) -> None:
    """The second does nothing but wait for the first, which alone looks for alarms."""
    options = ("--batch-size", "50", "--soundness")
    (expected,) = run(1, tmp_path, *options)
    first, second = run(2, tmp_path, *options)
    assert expected["report"]["alarms"], "two steps are too few for this model"
    assert same(first, expected)
    assert same(second, expected)
    assert second["forwards"] == 0
