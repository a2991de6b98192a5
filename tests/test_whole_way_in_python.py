"""The whole way in ten lines of Python: teacher, student, attack, export, verdict."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from compressor import attack, distill
from exporters import export, verify
from tests.cli.conftest import digits_student

__all__ = ["digits_student"]


def test_the_whole_way(
    digits_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("compressor.system.devices.available_threads", lambda: 1)
    shutil.copy(digits_student, "teacher.pt")

    run = distill(
        "teacher.pt", student="wideresnet-10-1", method="kd", data="digits", run="runs/a", epochs=3, eps=0.02,
        batch_size=32, learning_rate=0.1,
    )  # fmt: skip
    report = attack(run.best, suite="quick", eval_samples=64)
    artifact = export(run.best, precision="int8", output="a.onnx", evidence_samples=16)
    verdict = verify(artifact.path, data="digits")

    assert capfd.readouterr() == ("", ""), "nothing is printed"
    assert report.threat == run.recipe.threat
    assert report.clean_accuracy > 0.5
    assert artifact.claim.student == verdict.claim["student"]  # type: ignore[index]
    assert verdict.answer == "holds", verdict.to_json()
