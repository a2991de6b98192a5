"""The comparison itself: which runs may stand in one table, and what the table says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compressor.comparison.rows import Evaluations, Row, columns_of, make_rows
from compressor.comparison.runs import FinishedRun
from compressor.comparison.significance import Difference, differences
from compressor.core.errors import UnreadableRunError, UsageError
from compressor.evaluation.record import CheckpointName, EvaluationRecord

CHECKPOINTS: tuple[CheckpointName, ...] = ("best", "last")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Rows that were measured alike.

    Attributes:
        reference: an evaluation whose terms all others share.
        columns: clean, the suite's attacks, the worst case.
        rows: see ``make_rows``.
        baseline: the row that the others are compared with.
        differences: by checkpoint, row name and column.
        notes: what was left out of the table, and why.
        warnings: why some of the numbers are not to be trusted.
    """

    reference: EvaluationRecord
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    baseline: Row
    differences: Mapping[CheckpointName, Mapping[str, Mapping[str, Difference]]]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    def has(self, which: CheckpointName) -> bool:
        """Whether any row has these checkpoints measured."""
        return any(row.has(which) for row in self.rows)

    def difference(self, which: CheckpointName, row: Row, column: str) -> Difference | None:
        """The row's difference from the baseline, if it was tested."""
        return self.differences[which].get(row.name, {}).get(column)

    def to_json(self) -> dict[str, Any]:
        """The fields of ``compress compare --json``: accuracies are fractions in 0 to 1."""
        report = self.reference.report
        return {
            "suite": report.suite,
            "norm": report.threat.norm,
            "eps": report.threat.eps,
            "samples": report.samples,
            "seed": report.seed,
            "dataset": self.reference.dataset,
            "test_sha256": self.reference.test_sha256,
            "columns": list(self.columns),
            "against": self.baseline.name,
            "rows": [self._row_json(row) for row in self.rows],
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }

    def _row_json(self, row: Row) -> dict[str, Any]:
        measured = row.measured
        return {
            "name": row.name,
            "model": row.model,
            "method": row.method,
            "settings": dict(row.settings),
            "seeds": list(row.seeds),
            "runs": [run.name for run in row.runs],
            "parameters": measured.parameters,
            "macs": measured.macs,
            "checkpoint_bytes": measured.bytes,
            "onnx_bytes": row.onnx_bytes,
            "selection": [dict(record.measured.selection) for record in row.records["best"] if record],
            **{which: self._block_json(row, which) for which in CHECKPOINTS},
        }

    def _block_json(self, row: Row, which: CheckpointName) -> dict[str, Any] | None:
        if not row.has(which):
            return None
        block: dict[str, Any] = {}
        for column in self.columns:
            mean, deviation = row.accuracy(which, column) or (None, None)
            difference = self.difference(which, row, column)
            block[column] = {
                "mean": mean,
                "std": deviation,
                "values": [int(bits.sum()) / len(bits) for bits in row.bits(which, column)],
                "difference": difference.to_json() if difference else None,
            }
        return block


def compare_runs(runs: Sequence[FinishedRun], against: FinishedRun | None = None) -> Comparison:
    """Lay finished runs side by side.

    Args:
        runs: at least one; their best checkpoints are measured.
        against: the baseline; it joins the runs if it is not among them. ``None`` takes the first.

    Raises:
        UnreadableRunError: a run's best checkpoint is not measured. UsageError: they were not measured alike, or two
            of them are the same run.
    """
    wanted = list(runs)
    paths = [run.folder.path.resolve() for run in wanted]
    if against is not None and against.folder.path.resolve() not in paths:
        wanted.insert(0, against)
    best = [(run, run.evaluation("best")) for run in wanted]
    for run, record in best[1:]:
        _require_alike(best[0], (run, record))
    reference, notes = best[0][1], list[str]()
    entries: list[tuple[FinishedRun, Evaluations]] = [
        (run, {"best": record, "last": _last(run, reference, notes)}) for run, record in best
    ]
    rows = make_rows(entries)
    named = (against or wanted[0]).folder.path.resolve()
    baseline = next(row for row in rows if named in {run.folder.path.resolve() for run in row.runs})
    columns = columns_of(reference.report)
    return Comparison(
        reference, columns, rows, baseline,
        {which: differences(rows, baseline, which, columns) for which in CHECKPOINTS}, tuple(notes),
        tuple(_warnings(entries)),
    )  # fmt: skip


def _warnings(entries: Sequence[tuple[FinishedRun, Evaluations]]) -> Iterator[str]:
    for run, found in entries:
        for which, record in found.items():
            for alarm in record.report.alarms if record else ():
                yield f"{run.name}, {which}: not trustworthy: {alarm.name}: {alarm.detail}."
        best = found["best"]
        if best and best.measured.selection.get("split") == "test":
            yield f"{run.name} chose its best checkpoint on test images: that block flatters it."


def _require_alike(first: tuple[FinishedRun, EvaluationRecord], other: tuple[FinishedRun, EvaluationRecord]) -> None:
    terms, others = first[1].terms(), other[1].terms()
    unlike = [
        f"{name} {_short(terms[name])} and {_short(others[name])}" for name in terms if terms[name] != others[name]
    ]
    if unlike:
        raise UsageError(
            f"{first[0].name} and {other[0].name} were not measured alike ({'; '.join(unlike)}), so their numbers "
            "cannot be compared.",
            "Measure them alike with --evaluate both, --suite NAME, --eval-samples N and --eps EPS; or compare fewer.",
        )


def _last(run: FinishedRun, reference: EvaluationRecord, notes: list[str]) -> EvaluationRecord | None:
    """The last checkpoint's evaluation, if it is there and like the others."""
    try:
        record = run.evaluation("last")
    except UnreadableRunError as error:
        if run.folder.last_evaluation.exists():
            notes.append(error.message)
        return None
    if record.terms() != reference.terms():
        notes.append(f"the last checkpoint of {run.name} was measured otherwise ({record.report.suite}).")
        return None
    return record


def _short(term: object) -> str:
    return str(term)[:16]
