"""Runs become rows: those that differ in nothing but the seed are one, and each row says what tells it from others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from compressor.comparison.runs import FinishedRun
from compressor.core.errors import UsageError
from compressor.evaluation.record import CheckpointName, EvaluationRecord, MeasuredCheckpoint
from compressor.evaluation.report import Bits, Report
from compressor.numerics.statistics import mean_and_deviation
from compressor.system.files import canonical_json

CLEAN, WORST = "clean", "worst case"

_NOT_SETTINGS = ("seed", "method", "model")
_DIGEST_LETTERS = 8


@dataclass(frozen=True, eq=False)
class Row:
    """One student trained in one way, with one seed or several.

    Attributes:
        model: the student's name.
        method: what trained it.
        runs: one for each seed, in rising order.
        records: what was measured of each run, by checkpoint; ``None`` where it was not, or not like the others.
        settings: what tells it from other rows of the same student and method.
    """

    model: str
    method: str
    runs: tuple[FinishedRun, ...]
    records: Mapping[CheckpointName, tuple[EvaluationRecord | None, ...]]
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What tables and footnotes call it."""
        return f"{self.model} {self.label}"

    @property
    def label(self) -> str:
        """The method, and what tells it from the same method in other rows."""
        return f"{self.method} ({self.told})" if self.settings else self.method

    @property
    def told(self) -> str:
        """The settings as text."""
        return ", ".join(f"{name} {value}" for name, value in self.settings.items())

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the runs, in rising order."""
        return tuple(run.seed for run in self.runs)

    @property
    def measured(self) -> MeasuredCheckpoint:
        """What the first seed's best checkpoint is: parameters, operations and size are those of all seeds."""
        return next(record.measured for record in self.records["best"] if record)

    @property
    def onnx_bytes(self) -> int | None:
        """The size of the first seed's exported file; ``None`` where there is none."""
        exported = self.runs[0].folder.onnx
        return exported.stat().st_size if exported.is_file() else None

    def has(self, which: CheckpointName) -> bool:
        """Whether every run's checkpoint was measured."""
        return None not in self.records[which]

    def bits(self, which: CheckpointName, column: str) -> list[Bits]:
        """Each run's bits of one column, in the order of the seeds; nothing where a run lacks them."""
        return [column_of(record.report, column) for record in self.records[which] if record] if self.has(which) else []

    def accuracy(self, which: CheckpointName, column: str) -> tuple[float, float | None] | None:
        """Mean and standard deviation over the seeds, as fractions; ``None`` where it was not measured."""
        rates = [int(bits.sum()) / len(bits) for bits in self.bits(which, column)]
        return mean_and_deviation(rates) if rates else None


Evaluations = Mapping[CheckpointName, EvaluationRecord | None]
"""What was measured of a run's checkpoints."""


def columns_of(report: Report) -> tuple[str, ...]:
    """Clean, the suite's attacks, and the worst case where there are several."""
    return CLEAN, *report.attacks, *((WORST,) if len(report.attacks) > 1 else ())


def column_of(report: Report, column: str) -> Bits:
    """The bits of one column."""
    return {CLEAN: report.clean, WORST: report.robust, **report.attacks}[column]


def make_rows(entries: Sequence[tuple[FinishedRun, Evaluations]]) -> tuple[Row, ...]:
    """Group runs by all but the seed; students in the order of the runs, and rows within a student as well.

    Raises:
        UsageError: two runs do not even differ in the seed.
    """
    groups: dict[str, list[tuple[FinishedRun, Evaluations]]] = {}
    for entry in entries:
        groups.setdefault(_key(entry[0]), []).append(entry)
    rows = [_row(group) for group in groups.values()]
    students = list(dict.fromkeys(row.model for row in rows))
    rows.sort(key=lambda row: students.index(row.model))
    return tuple(_told_apart(row, rows) for row in rows)


def differing(runs: Sequence[FinishedRun]) -> list[str]:
    """The recipe's fields and the inputs that are not the same for all, beside seed, method and student."""
    settings = [_settings(run) for run in runs]
    names = dict.fromkeys(name for values in settings for name in values)
    return [name for name in names if len({repr(values.get(name)) for values in settings}) > 1]


def _row(group: list[tuple[FinishedRun, Evaluations]]) -> Row:
    group = sorted(group, key=lambda entry: entry[0].seed)
    for (first, _), (second, _) in pairwise(group):
        if first.seed == second.seed:
            raise UsageError(
                f"{first.name} and {second.name} have one recipe and one seed: they are the same run twice.",
                "Name one of them.",
            )
    recipe = group[0][0].recipe
    whiches: tuple[CheckpointName, ...] = ("best", "last")
    records = {which: tuple(found[which] for _, found in group) for which in whiches}
    return Row(recipe["model"], recipe["method"], tuple(run for run, _ in group), records)


def _told_apart(row: Row, rows: Sequence[Row]) -> Row:
    alike = [other.runs[0] for other in rows if (other.model, other.method) == (row.model, row.method)]
    names, mine = differing(alike), _settings(row.runs[0])
    if len(names) > 1:  # where anything else tells the rows apart, digests need not
        names = [name for name in names if not name.endswith("_sha256")] or names
    told = {name.removeprefix("method_settings."): _shown(name, mine.get(name)) for name in names}
    return Row(row.model, row.method, row.runs, row.records, told)


def _key(run: FinishedRun) -> str:
    return canonical_json([{name: v for name, v in run.recipe.items() if name != "seed"}, run.inputs])


def _settings(run: FinishedRun) -> dict[str, Any]:
    recipe = {name: value for name, value in run.recipe.items() if name not in _NOT_SETTINGS}
    return dict(_flat({**recipe, **run.inputs}))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "default"
    return str(value)[:_DIGEST_LETTERS] if name.endswith("_sha256") else str(value)
