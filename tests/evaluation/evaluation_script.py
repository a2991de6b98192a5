"""One of several processes that evaluate together, or are killed; started by tests, which read what it prints."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from compressor.core.types import Threat
from compressor.evaluation.evaluate import Report, evaluate
from compressor.evaluation.suites import Suite, SuiteColumn
from compressor.system.process_group import ProcessGroup, leave_process_group


def killed(work: Callable[[], object], state: Path, kill: int) -> int:
    """Let a child do the work, and kill it at a random moment while it writes; returns how many batches are there."""
    rng = np.random.default_rng(kill)

    def batches() -> int:
        return len(list(state.glob("[0-9]*.npz")))

    enough = batches() + int(rng.integers(1, 4))
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    while batches() < enough and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.0002)
    time.sleep(rng.uniform(0, 0.008))
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(child, 0)
    return batches()


def main() -> None:
    """Do one job after the other, their options parted by ``--then``, and print a line for each."""
    torch.set_num_threads(1)
    rank, size, meeting, *options = sys.argv[1:]
    if int(size) > 1:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{meeting}",
            rank=int(rank),
            world_size=int(size),
            timeout=timedelta(seconds=60),
        )
    for job in " ".join(options).split("--then"):
        sys.stdout.write(json.dumps(do(job.split())) + "\n")


def do(job: list[str]) -> dict[str, object]:
    """Evaluate as the options of a job say, and tell all that there is to tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--state", type=Path)
    parser.add_argument("--mode", default="alone")
    parser.add_argument("--batch-size", type=int, default=6)
    parser.add_argument("--soundness", action="store_true")
    parser.add_argument("--kill-after", type=int, default=0, help="batches, counted over all columns")
    parser.add_argument("--kills", type=int, default=0, help="how many children to start and kill first")
    given = parser.parse_args(job)
    process_group = ProcessGroup.current(torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 8, 8), dtype=np.uint8)
    with torch.no_grad():
        x = torch.from_numpy(images).float() / 255
        logits = model(x)
        model[-1].bias -= logits.mean(0)
        labels = model(x).argmax(1).numpy()
    labels[::9] = (labels[::9] + 1) % 3
    weak = {"steps": 2, "step_size": "0.2eps", "decide": "first"}
    suite = Suite(
        "t", 1, "", (SuiteColumn("A", "pgd-sat", weak), SuiteColumn("B", "fgsm"), SuiteColumn("C", "pgd-sat", weak))
    )
    forwards = 0

    def count(_module: nn.Module, _inputs: object) -> None:
        nonlocal forwards
        forwards += 1

    model.register_forward_pre_hook(count)
    calls: list[tuple[str, int, int]] = []

    def on_progress(name: str, done: int, total: int) -> None:
        calls.append((name, done, total))
        if given.kill_after and len(calls) > given.kill_after + process_group.rank:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> Report:
        return evaluate(
            model,
            images,
            labels,
            Threat("Linf", "0.05"),
            suite,
            seed=1,
            batch_size=given.batch_size,
            mode=given.mode,
            soundness=given.soundness,
            state=given.state,
            model_digest="m",
            process_group=process_group,
            on_progress=on_progress,
        )

    found_by_killed = [killed(work, given.state, kill) for kill in range(given.kills)]
    try:
        report = work()
    except RuntimeError:
        # The first that is killed leaves the other waiting for it, which ends in the group's own error.
        if not given.kill_after:
            raise
        os.kill(os.getpid(), signal.SIGKILL)
    bits = {"clean": report.clean, **report.attacks}
    return {
        "report": report.to_json(),
        "bits": {name: column.astype(int).tolist() for name, column in bits.items()},
        "said": {name: column.tolist() for name, column in report.predictions.items()},
        "files": found_by_killed,
        "calls": calls,
        "forwards": forwards,
    }


if __name__ == "__main__":
    main()
    leave_process_group()
