"""Two real processes, over gloo: they take the same steps as one, see the same images, and stop together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from compressor.system.process_group import ProcessGroup
from compressor.training.batches import BatchLoader
from compressor.training.timing import Stopwatch

_SCRIPT = Path(__file__).parent / "processes_script.py"
_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = util.spec_from_file_location("processes_script", _SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, script: ModuleType) -> Path:
    """The folder of runs that two processes made together."""
    folder = tmp_path_factory.mktemp("two")
    script.make_teacher(folder)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {
        "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1", "COMPRESS_CACHE_DIR": str(folder / "cache"),
    }  # fmt: skip
    done = subprocess.run(
        [*launcher, str(_SCRIPT), str(folder)], capture_output=True, text=True, timeout=240, check=False,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("step", ["natural", "sat", "rslad", "trades", "iad", "adaad", "sat-awp-ema", "rslad-swa"])
def test_gradients_are_those_of_one_process_that_accumulates(
    step: str, two: Path, script: ModuleType, tmp_path: Path
) -> None:
    script.make_teacher(tmp_path)
    script.run(tmp_path, "one", script.method_of(step), learning_rate=1.0, accumulation=2, **script.STEPS[step])
    together, alone = (load_file(folder / "last.safetensors") for folder in (two / f"step-{step}", tmp_path / "one"))
    # One step of length 1 from the same weights: equal weights mean equal gradients.
    moved = 0.0
    start = script.build_classifier(script.ModelSpec(script.MODEL, 10, 16), seed=0).network.state_dict()
    for name, tensor in alone.items():
        if "running" in name or "batches" in name:
            continue
        torch.testing.assert_close(together[name], tensor, rtol=1e-4, atol=1e-6)
        moved = max(moved, float((tensor - start[name]).abs().max()))
    assert moved > 1e-3


def test_running_statistics_are_the_mean_of_the_processes(two: Path, script: ModuleType) -> None:
    together = load_file(two / "step-natural" / "last.safetensors")
    recipe, training = script.settings_and_images("natural", learning_rate=1.0)
    expected: list[dict[str, torch.Tensor]] = []
    for rank in range(2):
        student = script.build_classifier(script.ModelSpec(script.MODEL, 10, 16), seed=0).train()
        cpu = torch.device("cpu")
        batch_loader = BatchLoader(recipe, training, cpu, ProcessGroup(rank, 2), None, Stopwatch(cpu, profile=False))
        (share,) = batch_loader.shares(0, 0)
        student(share.batch.x)
        expected.append(student.network.state_dict())
    names = [name for name in together if "running" in name]
    assert len(names) > 4
    for name in names:
        torch.testing.assert_close(together[name], (expected[0][name] + expected[1][name]) / 2)
        assert not torch.equal(expected[0][name], expected[1][name])


def test_stopped_and_resumed_gives_the_same_bytes(two: Path) -> None:
    assert (two / "interrupted-0").exists()
    assert (two / "interrupted-1").exists()
    for file in ("last.safetensors", "best.safetensors", "metrics.jsonl"):
        assert (two / "parts" / file).read_bytes() == (two / "whole" / file).read_bytes()


def test_records_count_the_images_of_both(two: Path) -> None:
    records = [json.loads(line) for line in (two / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    assert all(record["validation"]["samples"] == 12 for record in records)
    assert json.loads((two / "whole" / "environment.json").read_text())["processes"] == 2


def test_answers_that_one_process_asked_for_serve_the_other(two: Path) -> None:
    # The same images again, in a new run: whichever process sees an image now, its answer is there.
    assert "the label cache gave 100% of" in (two / "notes.txt").read_text()


@pytest.mark.parametrize("name", ["warm", "accumulated"])
def test_every_option_trains_to_the_end(name: str, two: Path) -> None:
    lines = (two / name / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert all(json.loads(line)["loss"]["total"] > 0 for line in lines)
