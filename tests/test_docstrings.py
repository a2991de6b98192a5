"""Every public function has an example in its docstring, and the example is true."""

from __future__ import annotations

import doctest
import importlib
import inspect
import shutil
from pathlib import Path

import pytest

import compressor
from tests.cli.conftest import digits_student

__all__ = ["digits_student"]

FUNCTIONS = [name for name in compressor.__all__ if not inspect.isclass(getattr(compressor, name))]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_example_runs(
    name: str,
    digits_student: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("compressor.system.devices.available_threads", lambda: 1)
    shutil.copy(digits_student, tmp_path / "teacher.safetensors")
    function = getattr(compressor, name)
    module = importlib.import_module(function.__module__)
    tests = doctest.DocTestFinder(recurse=False).find(function, name, module, globs={})
    assert tests, "it has no docstring"
    for test in tests:
        assert test.examples, f"{name} has no example"
        report: list[str] = []
        outcome = doctest.DocTestRunner(verbose=False).run(test, out=report.append)
        assert outcome.failed == 0, "".join(report)
    capsys.readouterr()
