"""The tests for a GPU, on the CPU that stands in for one: so that none of them fails there by a slip of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Quick ones of every file; collecting them imports the rest.
FAST = (
    "256 or cpu_s_to_the_bit or cpu_generator or full_float32 or settled or (autocast and bf16) "
    "or (frozen_twin and fp32) or (terms_of_a_method and rslad and 9) or (breaks_what and apgd-ce and Linf) "
    "or (resumed_run and sat-fp16-0) or cold_and_warm_labels_are"
)


def test_a_fast_selection_passes_where_the_cpu_stands_in() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COMPRESS_GPU_TESTS_ON": "cpu"}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-k", FAST, "tests/gpu"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = done.stdout.strip().splitlines()[-1]
    assert "passed" in summary
    assert "skipped" not in summary
