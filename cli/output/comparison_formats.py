"""A comparison as people and programs read it: a table, Markdown, CSV or JSON, and the footnotes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

from cli.output.console import Output
from compressor.core.errors import UsageError
from compressor.core.registry import METHODS
from compressor.system.sizes import format_size

if TYPE_CHECKING:
    from compressor.comparison import Comparison, Row
    from compressor.evaluation.record import CheckpointName

Format = Literal["table", "markdown", "csv", "json"]

SCHEMA = "compress.compare/1"

_SUFFIXES: dict[str, Format] = {".md": "markdown", ".csv": "csv", ".json": "json"}
_ABSENT = "-"
_FEW_IMAGES = 1000


def format_by(text: str | None, suffix: str | None) -> Format:
    """What ``--format`` names, else what a file's suffix does, else a table.

    Raises:
        UsageError: no such format, or a file that would get a table's frame.
    """
    if text is not None and text not in get_args(Format):
        raise UsageError(f"there is no format {text!r}.", f"Use one of: {', '.join(get_args(Format))}.")
    named: Format = text if text is not None else _SUFFIXES.get(suffix or "", "table")  # type: ignore[assignment]
    if suffix is not None and named == "table":
        raise UsageError("a table is for a terminal, not for a file.", "Add --format markdown, csv or json.")
    return named


def show_comparison(comparison: Comparison, output: Output) -> None:
    """Best, last and costs one under the other, since a terminal is narrow, and the footnotes."""
    students = {row.model for row in comparison.rows}
    # One student stands in the title, and its column is left to the figures.
    skipped, of = (1, f" of {min(students)}") if len(students) == 1 else (0, "")
    head = _labels(comparison)[skipped:]
    rows = [_label_cells(comparison, row)[skipped:] for row in comparison.rows]
    for which in _blocks(comparison):
        cells = [[*label, *_cells(comparison, which, row)] for label, row in zip(rows, comparison.rows, strict=True)]
        output.table(f"{which} checkpoint{of}: accuracy, %", [*head, *comparison.columns], cells, labels=2 - skipped)
    costs, of_rows = _costs(comparison)
    cells = [[*label, *spent] for label, spent in zip(rows, of_rows, strict=True)]
    output.table(f"costs{of}", [*head, *costs], cells, labels=2 - skipped)
    for line in footnotes(comparison):
        output.line(line)


def to_markdown(comparison: Comparison) -> str:
    """One table, best and last side by side as in the papers, and the footnotes under it."""
    blocks = _blocks(comparison)
    head = [*_labels(comparison), *(f"{which}: {c}" for which in blocks for c in comparison.columns)]
    rows = [
        [*_label_cells(comparison, row), *(cell for which in blocks for cell in _cells(comparison, which, row))]
        for row in comparison.rows
    ]
    costs, of_rows = _costs(comparison)
    lines = [[*head, *costs], *([*row, *more] for row, more in zip(rows, of_rows, strict=True))]
    table = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    table.insert(1, "|" + "---|" * len(lines[0]))
    said = [*footnotes(comparison), *comparison.warnings]
    notes = (f"- {line}".replace("- * ", "- \\* ") for line in said)  # a bare star starts a list
    return "\n".join([*table, "", *notes]) + "\n"


def to_text(comparison: Comparison, chosen: Format) -> str:
    """The comparison in one of the formats for a file or a pipe."""
    return {"markdown": to_markdown, "csv": to_csv, "json": to_json}[chosen](comparison)


def to_csv(comparison: Comparison) -> str:
    """One line for each row and checkpoint; accuracies are fractions, and what is absent is empty."""
    text = io.StringIO()
    numbers = [f"{column}{part}" for column in comparison.columns for part in ("", " std", " p_holm")]
    writer = csv.writer(text, lineterminator="\n")
    costs = ("parameters", "macs", "checkpoint_bytes", "onnx_bytes")
    labels = ("student", "method", "settings", "seeds", "checkpoint")
    writer.writerow([*labels, *numbers, *costs, "suite", "threat", "images", "selection"])
    report = comparison.reference.report
    for row in comparison.rows:
        measured = row.measured
        for which in _blocks(comparison):
            values: list[Any] = []
            for column in comparison.columns:
                difference = comparison.difference(which, row, column)
                values += [*(row.accuracy(which, column) or (None, None)), difference.adjusted if difference else None]
            told = [row.model, row.method, row.told, " ".join(map(str, row.seeds)), which]
            spent = [measured.parameters, measured.macs, measured.bytes, row.onnx_bytes]
            selected = measured.selection.get("split")
            writer.writerow([*told, *values, *spent, report.suite, report.threat, report.samples, selected])
    return text.getvalue()


def to_json(comparison: Comparison) -> str:
    """The object of ``--json``, for a file."""
    value = {"schema": SCHEMA, **comparison.to_json()}
    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def footnotes(comparison: Comparison) -> Iterator[str]:
    """What a reader must know to trust the numbers: measured how, selected how, tested how, and what is missing."""
    report = comparison.reference.report
    over = "; ± is the standard deviation over the seeds" if _has_seeds(comparison) else ""
    yield (
        f"Accuracy in % under {report.suite}, {report.threat}, on the same {report.samples:,} test images of "
        f"{comparison.reference.dataset} (evaluation seed {report.seed}){over}."
    )
    yield _selection(comparison)
    yield from _tests(comparison)
    from compressor.comparison import differing

    runs = [run for row in comparison.rows for run in row.runs]
    fields = [name for name in differing(runs) if not name.startswith("method_settings.")]
    if fields:
        yield f"Beside student, method and seed, the runs differ in: {', '.join(fields)}."
    missing = [run.name for row in comparison.rows if not row.has("last") for run in row.runs]
    if missing:
        yield f"Last checkpoint not measured; compress compare --evaluate both RUN... does it: {', '.join(missing)}."
    yield from comparison.notes


def _blocks(comparison: Comparison) -> list[CheckpointName]:
    from compressor.comparison import CHECKPOINTS

    return [which for which in CHECKPOINTS if comparison.has(which)]


def _labels(comparison: Comparison) -> list[str]:
    return ["student", "method", *(["seeds"] if _has_seeds(comparison) else [])]


def _label_cells(comparison: Comparison, row: Row) -> list[str]:
    return [row.model, row.label, *([str(len(row.seeds))] if _has_seeds(comparison) else [])]


def _has_seeds(comparison: Comparison) -> bool:
    return any(len(row.seeds) > 1 for row in comparison.rows)


def _cells(comparison: Comparison, which: CheckpointName, row: Row) -> list[str]:
    digits = 1 if comparison.reference.report.samples <= _FEW_IMAGES else 2
    cells = []
    for column in comparison.columns:
        accuracy, difference = row.accuracy(which, column), comparison.difference(which, row, column)
        if accuracy is None:
            cells.append(_ABSENT)
            continue
        mean, deviation = accuracy
        spread = "" if deviation is None else f" ± {100 * deviation:.{digits}f}"
        cells.append(f"{100 * mean:.{digits}f}{spread}{'*' if difference and difference.marked else ''}")
    return cells


def _costs(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Parameters, multiply-adds, and the size of the file: the ONNX file where every row has one."""
    rows = comparison.rows
    exported = all(row.onnx_bytes for row in rows)
    cells = [
        [
            _short(row.measured.parameters),
            _short(row.measured.macs),
            format_size((row.onnx_bytes if exported else None) or row.measured.bytes),
        ]
        for row in rows
    ]
    return ["parameters", "MACs", "ONNX" if exported else "checkpoint"], cells


def _short(count: int | None) -> str:
    if count is None:
        return _ABSENT
    for unit, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.2f} {letter}"
    return str(count)


def _selection(comparison: Comparison) -> str:
    """Which images chose the best checkpoints, and by what."""
    ways: dict[str, list[str]] = {}
    for row in comparison.rows:
        for run, record in zip(row.runs, row.records["best"], strict=True):
            chosen = record.measured.selection if record else {}
            by = f"PGD-{run.recipe['selection_steps']}"
            if getattr(METHODS.get(row.method), "selects_by", "robust") == "clean":
                by = "clean accuracy"
            way = f"{chosen.get('split', 'unknown')}, {chosen.get('samples', '?')} images, {by}"
            ways.setdefault(way, []).append(row.method)
    if len(ways) == 1:
        return f"The best checkpoint was selected on: {next(iter(ways))}."
    told = "; ".join(f"{way} ({', '.join(dict.fromkeys(methods))})" for way, methods in ways.items())
    return f"The best checkpoints were selected on: {told}."


def _tests(comparison: Comparison) -> Iterator[str]:
    from compressor.comparison import LEVEL

    block = [found for rows in comparison.differences.values() for found in rows.values()]
    used = {difference.test: difference for columns in block for difference in columns.values()}
    if not used:
        return
    names = {
        "mcnemar": "McNemar's exact test on the same images, which every pair of the two rows' runs must "
        "pass (it tells models apart, not methods)",
        "paired-t": "a t test of the seeds, in pairs",
        "welch-t": "Welch's t test of the seeds",
    }
    tests = " or ".join(text for name, text in names.items() if name in used)
    count = max(len(rows) for rows in comparison.differences.values())
    marked = any(difference.marked for columns in block for difference in columns.values())
    says, sign = ("* differs from", "<") if marked else ("Nothing is marked as differing from", ">=")
    yield (
        f"{says} {comparison.baseline.name}, p {sign} {LEVEL:g} in {tests}, two-sided, by Holm's correction over "
        f"the {count} row{'s' if count > 1 else ''} compared in each column."
    )
    for which, rows in comparison.differences.items():
        for name, columns in rows.items():
            for column, difference in columns.items():
                if difference.interval and column == comparison.columns[-1]:
                    low, high = difference.interval
                    yield (
                        f"{name}, {which}, {column}: {100 * difference.difference:+.1f} points, 95 % interval "
                        f"{100 * low:+.1f} to {100 * high:+.1f}."
                    )
