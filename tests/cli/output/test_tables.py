"""What people see of a report."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from cli.output.console import Output
from cli.output.tables import show_outcomes, show_report, show_verdict
from compressor.core.types import Threat
from compressor.evaluation.report import Alarm, Report
from exporters.api.exporting import ExportedFile
from exporters.artifact.sealing import ExportSettings
from exporters.pipeline.grid import RunOutcome
from exporters.verification.verdict import Check, PolicyResult, PolicyStatus, Verdict

ALARMS = (
    Alarm("zero-gradients", "of 64 images, 64 have none", "The attack does not know where to go."),
    Alarm("half-range", "9 of 16 images survive"),
)


def report(alarms: tuple[Alarm, ...], *columns: str) -> Report:
    bits = np.arange(10) < 7
    return Report(Threat(), "t@1", 0, "alone", bits, {name: bits & (np.arange(10) > 2) for name in columns}, alarms)


@pytest.mark.parametrize("columns", [("FGSM",), ("FGSM", "PGD")])
def test_a_figure_that_nobody_should_trust_says_so_where_it_stands(
    capsys: pytest.CaptureFixture[str], columns: tuple[str, ...]
) -> None:
    with Output() as output:
        show_report(report(ALARMS, *columns), "m.pt", output)
    title, *lines = (line.strip() for line in capsys.readouterr().out.strip().splitlines())
    assert title == "m.pt: t@1, Linf 8/255, seed 0, NOT TRUSTWORTHY"
    (worst,) = (line for line in lines if line.startswith("worst case"))
    assert worst.split()[:5] == ["worst", "case,", "NOT", "TRUSTWORTHY", "40.0"]
    assert lines[-2:] == [
        "not trustworthy: zero-gradients: of 64 images, 64 have none. The attack does not know where to go.",
        "not trustworthy: half-range: 9 of 16 images survive.",
    ]


def test_a_figure_without_alarms_says_nothing_of_trust(capsys: pytest.CaptureFixture[str]) -> None:
    with Output() as output:
        show_report(report((), "FGSM"), "m.pt", output)
    printed = "".join(capsys.readouterr())
    assert "trustworthy" not in printed.lower()
    assert "worst case" not in printed


@pytest.mark.parametrize("alarms", [(), ALARMS])
def test_a_grids_line_says_it_too(capsys: pytest.CaptureFixture[str], alarms: tuple[Alarm, ...]) -> None:
    plan = SimpleNamespace(
        recipe=SimpleNamespace(method="kd", seed=0), folder=SimpleNamespace(path=Path("runs/kd"))
    )  # fmt: skip
    done = SimpleNamespace(report=report(alarms, "FGSM"), verdict=SimpleNamespace(answer="holds"))
    with Output() as output:
        show_outcomes([RunOutcome(cast(Any, plan), cast(Any, done))], output)
    assert ("40.0 %, NOT TRUSTWORTHY" in capsys.readouterr().out) == bool(alarms)


def test_the_json_of_an_export_says_what_its_claim_confesses(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"1")
    claim = {"samples": 4, "clean_correct": 3, "robust": 2, "alarms": ["half-range"]}
    for said, expected in ((claim, ["half-range"]), (None, [])):
        verdict = SimpleNamespace(claim=said, answer="undecided")
        exported = ExportedFile(path, "fp32", ExportSettings(), cast(Any, verdict), None)
        assert exported.to_json()["alarms"] == expected


def test_with_json_the_reasons_are_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    with Output(as_json=True) as output:
        show_report(report(ALARMS, "FGSM"), "m.pt", output)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("warning: not trustworthy: ") == 2


def test_what_an_attack_alone_broke_and_which_part_of_an_ensemble_broke_it(capsys: pytest.CaptureFixture[str]) -> None:
    clean = np.ones(6, dtype=bool)
    attacks = {"FGSM": np.array([1, 0, 1, 1, 1, 1], dtype=bool), "AA": np.array([1, 0, 0, 0, 1, 1], dtype=bool)}
    stages = {"AA": (("apgd-ce", "square"), np.array([-1, 0, 0, 1, -1, -1]))}
    with Output() as output:
        show_report(Report(Threat(), "t@1", 0, "alone", clean, attacks, broken_by=stages), "m.pt", output)
    lines = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert lines["FGSM"][-3:] == ["5", "6", "0"]
    assert lines["AA"][-3:] == ["3", "6", "2"]
    assert lines["AA:"][-4:] == ["apgd-ce", "2,", "square", "1"]


def verdict(answer: Any, checks: tuple[Check, ...], policy: tuple[PolicyResult, ...] = ()) -> Verdict:
    return Verdict(
        answer, ("self-consistent",), "The summary.", 10, 8, 5, 0, 5, {"FGSM": 0, "Square": 0}, (), checks, policy,
        None, Threat(), "t@1", 7, "compress verify m.onnx --seed 7",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ((), "HOLDS (self-consistent)."),
        (("met",), "HOLDS (self-consistent)."),
        (("met", "unmet", "undecided"), "HOLDS, BUT A POLICY IS UNMET (self-consistent)."),
        (("undecided",), "HOLDS, BUT A POLICY IS UNDECIDED (self-consistent)."),
    ],
)
def test_the_last_line_is_no_good_news_where_the_exit_code_is_none(
    capsys: pytest.CaptureFixture[str], states: tuple[PolicyStatus, ...], said: str
) -> None:
    policy = tuple(PolicyResult(f"p{number}", status, "5 of 10") for number, status in enumerate(states))
    with Output() as output:
        show_verdict(verdict("holds", (Check("attacks", "passed", "t@1 broke 0"),), policy), output)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{said} The summary."
    assert ("To repeat: compress verify m.onnx --seed 7" in lines) == (said[5] == ",")


def test_what_was_found_is_said_once_and_its_cause_below_it(capsys: pytest.CaptureFixture[str]) -> None:
    checks = (
        Check("digests", "undecided", "no evidence", "Name it."),
        Check("attacks", "passed", "t@1 broke 0 of 5 (FGSM 0, Square 0)"),
    )
    with Output() as output:
        show_verdict(verdict("undecided", checks), output)
    out = capsys.readouterr().out
    assert out.count("no evidence") == out.count("Name it.") == out.count("Square 0") == 1
    first, second = (out.splitlines()[number] for number in (2, 3))
    assert first.startswith("UNDECIDED digests")
    assert second.index("Name it.") == first.index("no evidence")
