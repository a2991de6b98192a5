"""Damaged files, hundreds of them: an answer for each, in a sentence, in bounded memory, and never a green one."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("fuzz_script.py")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

LIBRARIES = 2 * 10**9
"""Bytes that torch and onnxruntime may take beside the limit."""


def damage(source: Path, folder: Path, seed: int, count: int, *more: str) -> list[dict[str, Any]]:
    words = [sys.executable, str(SCRIPT), str(source), str(folder), str(seed), str(count), *more]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=240, env=ENVIRONMENT)
    assert done.returncode == 0, f"it crashed after {done.stdout[-500:]}: {done.stderr[-2000:]}"
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(told) == count
    return told


def check(told: dict[str, Any], verdict: dict[str, Any], code: int) -> None:
    assert code in (0, 1, 3), told
    # A changed graph may be as good as the old one; so only where the digests are the sealed ones is that a lie.
    if code == 0:
        assert told["same"] or told["what"].startswith("resealed"), told
    else:
        detail = verdict["failure"]["detail"]
        assert "internal error" not in detail, told
        assert detail.isprintable(), told
    assert verdict["exit_code"] == code


def test_damaged_files_are_answered_in_a_sentence(convolving: Path, tmp_path: Path) -> None:
    """In one process of their own, since a crash is what is looked for."""
    told = damage(convolving, tmp_path, 0, 300, "verify")
    for one in told:
        check(one, one["json"], one["exit_code"])
    codes = [one["exit_code"] for one in told]
    assert min(codes.count(1), codes.count(3)) > 20, "digests and structure both had something to say"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_command_answers_for_every_damaged_file(seed: int, convolving: Path, tmp_path: Path) -> None:
    limit = 10**9
    for told in damage(convolving, tmp_path, seed, 40):
        path = tmp_path / str(told["number"]) / "model.onnx"
        words = ["verify", str(path), "--json", "--seed", "1", "--threads", "1", "--memory-limit", str(limit)]
        done = subprocess.run(
            [sys.executable, "-m", "cli", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env=ENVIRONMENT,
        )
        assert "Traceback" not in done.stderr, told
        (line,) = done.stdout.splitlines()
        check(told, json.loads(line), done.returncode)
    peak = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak < limit + LIBRARIES
