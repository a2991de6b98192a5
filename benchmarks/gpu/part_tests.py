"""The tests marked ``gpu``, in a process of their own, their outcome recorded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from benchmarks.gpu.clock import Clock
from benchmarks.gpu.results import Results
from benchmarks.gpu.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent
_LAST_WORDS = 15.0
_MOST_FAILURES = 30

_SMOKE_TEST = '''
"""Written by the smoke mode of benchmarks/gpu/run.py."""
import pytest


@pytest.mark.gpu
def test_marked_test_is_run():
    pass


def test_other_test_is_not_run():
    raise AssertionError
'''


def run(settings: Settings, results: Results, clock: Clock) -> None:
    """Run pytest; at the end of the budget ask it to stop, so that it still writes what it has."""
    report = results.folder / "tests.xml"
    paths = [_smoke_tests(settings.work) if settings.smoke else _marked_tests()]
    command = pytest_command(paths, report, workers=0 if settings.smoke else settings.test_workers)
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    stopped = False
    try:
        code = process.wait(timeout=max(clock.left, 1.0))
    except subprocess.TimeoutExpired:
        stopped = True
        code = _stop(process)
    outcome = read_report(report) if report.exists() else {"counts": {}, "not_passed": []}
    results.add(
        "tests",
        "outcome",
        exit_code=code,
        stopped_by_budget=stopped,
        seconds=round(time.monotonic() - started, 1),
        command=" ".join(command[1:]),
        **outcome,
    )


def pytest_command(paths: list[Path], report: Path, *, workers: int) -> list[str]:
    """The command that runs the marked tests, and them alone.

    Args:
        paths: files or folders.
        report: where the JUnit XML goes.
        workers: processes; 0 runs all tests in one.
    """
    several = ["-n", str(workers)] if workers else []
    # Warnings of other versions of the libraries are no failures of ours.
    quiet = ["-W", "default", "-p", "no:cacheprovider", "--durations=15", "-ra", "--tb=short", "-v"]
    return [
        sys.executable, "-m", "pytest", "-m", "gpu", *quiet, *several,
        "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), f"--junitxml={report.resolve()}",
        *map(str, paths),
    ]  # fmt: skip


def read_report(path: Path) -> dict[str, Any]:
    """Counts of outcomes in a JUnit XML file, and names with first lines of what did not pass."""
    counts: Counter[str] = Counter()
    not_passed: list[dict[str, str]] = []
    for case in ElementTree.parse(path).iter("testcase"):
        problem = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
        outcome = "passed" if problem is None else problem.tag
        counts[outcome] += 1
        if problem is not None and len(not_passed) < _MOST_FAILURES:
            name = f"{case.get('classname')}::{case.get('name')}"
            not_passed.append({"test": name, "outcome": outcome, "message": (problem.get("message") or "")[:500]})
    return {"counts": dict(counts), "not_passed": not_passed}


def _stop(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGINT)
    try:
        return process.wait(timeout=_LAST_WORDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def _marked_tests() -> Path:
    """The folder of the marked tests; collecting all others, in each process, would take longer than running these."""
    folder = ROOT / "tests" / "gpu"
    return folder if folder.is_dir() else ROOT / "tests"


def _smoke_tests(work: Path) -> Path:
    folder = work / "smoke-tests"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "test_smoke.py"
    path.write_text(_SMOKE_TEST, encoding="utf-8")
    return path
