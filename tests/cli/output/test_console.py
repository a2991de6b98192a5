"""What is printed where: results on stdout, the rest on stderr, one JSON object, no control characters from files."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from cli.output import console as output_module
from cli.output.console import Output


def test_json_leaves_stdout_to_the_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    with Output(as_json=True) as output:
        output.phase("phase")
        output.note("note")
        output.table("title", ["a", "b"], [("x", "1")])
        output.line("line")
        output.json("compress.test/1", {"value": 1, "absent": None})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"schema": "compress.test/1", "value": 1, "absent": None}
    assert "phase" in err
    assert "note" in err


def test_quiet_keeps_results_and_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    with Output(quiet=True) as output:
        output.phase("phase")
        output.note("note")
        output.advance(1, 2)
        output.warn("beware")
        output.line("result")
    out, err = capsys.readouterr()
    assert out == "result\n"
    assert err == "warning: beware\n"


def test_text_from_files_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Output() as output:
        output.line("class \x1b[31mred\x07 [bold]not markup[/bold]")
    out, _ = capsys.readouterr()
    assert "\x1b" not in out
    assert "\x07" not in out
    assert "[bold]not markup[/bold]" in out


def test_a_terminal_wraps_an_entry_beside_its_head_and_a_log_keeps_it_on_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "a [red] detail of " + "many words " * 6
    with Output() as output:
        output.entry("ok    structure   ", text.strip())
        assert capsys.readouterr().out == f"ok    structure   {text.strip()}\n"
        monkeypatch.setattr(output, "_out", Console(width=40, force_terminal=True, color_system=None))
        output.entry("ok    structure   ", text.strip())
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("ok    structure   a [red]")
    assert len(rest) > 1
    assert all(line.startswith(" " * 18) and line[18] != " " for line in rest)
    assert " ".join(line[18:].strip() for line in (first, *rest)) == text.strip()


def test_away_from_a_terminal_a_line_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(output_module.time, "monotonic", lambda: clock[0])
    with Output() as output:
        output.phase("attacking")
        for done in range(241):
            output.advance(done, 1000, "PGD-20")
            clock[0] += 1.0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "attacking"
    assert len(lines) == 5
    assert lines[1] == "  60/1,000, 15 min 40 s left, 1.0/s  PGD-20"


def test_the_pace_starts_anew_when_the_next_attack_does(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(output_module.time, "monotonic", lambda: clock[0])
    pace = output_module._Pace()
    for done in range(101):
        pace.update(done)
        clock[0] += 0.1
    assert pace.rate == pytest.approx(10)
    for done in range(11):
        pace.update(done)
        clock[0] += 1.0
    assert pace.rate == pytest.approx(1)
