"""Real processes over gloo: they share the work out, and their report is that of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.evaluation_state import EvaluationState

SCRIPT = Path(__file__).with_name("evaluation_script.py")


def run(size: int, folder: Path, *options: str) -> list[dict[str, Any]]:
    """Start so many processes, and return what each said."""
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
    failed = [f"{code}: {error}" for _, error, code in outcomes if code != 0]
    assert not failed, "\n".join(failed)
    return [json.loads(out) for out, *_ in outcomes]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    (answer,) = run(1, tmp_path_factory.mktemp("alone"))
    bits = answer["bits"]
    assert 0 < sum(bits["A"]) < sum(bits["clean"]) < 50
    return answer


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return bool(a["report"] == b["report"] and a["bits"] == b["bits"])


@pytest.mark.parametrize("mode", ["alone", "cascade"])
def test_two_processes_share_the_work_and_agree_with_one(mode: str, alone: dict[str, Any], tmp_path: Path) -> None:
    (expected,) = [alone] if mode == "alone" else run(1, tmp_path / "one", "--mode", mode)
    state = tmp_path / "state.json"
    answers = run(2, tmp_path / "meetings", "--mode", mode, "--state", str(state))
    for answer in answers:
        assert same(answer, expected)
        # Half of the batches each, and the few that the twin was checked with.
        assert answer["forwards"] < 0.7 * expected["forwards"]
        for name in answer["bits"]:
            done = [call[1:] for call in answer["calls"] if call[0] == name]
            assert done[-1][0] == done[-1][1]
            assert done == sorted(done)
    assert [path.name for path in tmp_path.glob("state*")] == ["state.json"]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (2, 2), (1, 2)])
def test_killed_between_columns_and_resumed(before: int, after: int, alone: dict[str, Any], tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    killed = run(before, tmp_path / "meetings", "--state", str(state), "--kill-at", "A")
    assert killed == [{"killed": True}] * before
    answers = run(after, tmp_path / "meetings", "--state", str(state))
    for answer in answers:
        assert same(answer, alone)
        assert next(call for call in answer["calls"] if call[0] == "A")[1] == sum(alone["bits"]["clean"])
    assert sum(answer["forwards"] for answer in answers) < 0.9 * alone["forwards"]
    assert [path.name for path in tmp_path.glob("state*")] == ["state.json"]
    (again,) = run(1, tmp_path / "meetings", "--state", str(state))
    assert same(again, alone)
    assert again["forwards"] == 0


def test_more_processes_than_batches(tmp_path: Path) -> None:
    """The second does nothing but wait for the first."""
    (expected,) = run(1, tmp_path, "--batch-size", "50")
    first, second = run(2, tmp_path, "--batch-size", "50")
    assert same(first, expected)
    assert same(second, expected)
    assert second["forwards"] == 0


COLUMNS = ["clean", "A"]


def opened(path: Path, *, key: str = "key", rank: int = 0) -> EvaluationState:
    return EvaluationState.open(path, key, COLUMNS, 3, rank=rank)


def test_each_process_writes_its_own_file_and_reads_all(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    states = [opened(path, rank=rank) for rank in range(3)]
    for rank, state in enumerate(states):
        state.bits["clean"][rank] = rank % 2
        state.save()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["state.json", "state.json.rank1", "state.json.rank2"]
    for rank in range(3):
        np.testing.assert_array_equal(opened(path, rank=rank).bits["clean"], [0, 1, 0])
    np.testing.assert_array_equal(opened(path, key="other").bits["clean"], [-1, -1, -1])


def test_a_damaged_file_of_one_process_costs_its_bits_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    state = opened(path)
    state.bits["A"][0] = 1
    state.save()
    (tmp_path / "state.json.rank1").write_text('{"schema": ')
    (tmp_path / "state.json.rank2").mkdir()
    np.testing.assert_array_equal(opened(path).bits["A"], [1, -1, -1])


def test_the_first_process_absorbs_what_the_others_left_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    others = ["state.json.rank", "state.json.rank1x", "xstate.json.rank1", "state_json.rank1"]
    for name in others:
        (tmp_path / name).write_text("")
    helper = opened(path, rank=1)
    helper.bits["clean"][1] = 1
    helper.save()
    opened(path, rank=1).absorb()
    assert (tmp_path / "state.json.rank1").exists()
    opened(path).absorb()
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*others, "state.json"])
    np.testing.assert_array_equal(opened(path).bits["clean"], [-1, 1, -1])


def test_a_state_in_memory_touches_no_file() -> None:
    state = EvaluationState.open(None, "key", COLUMNS, 3)
    state.save()
    state.absorb()
    assert state.bits["A"].tolist() == [-1, -1, -1]
