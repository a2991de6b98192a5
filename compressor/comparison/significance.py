"""Whether a row differs from the baseline by more than chance, column by column."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from compressor.comparison.rows import Row
from compressor.evaluation.record import CheckpointName
from compressor.numerics.statistics import holm, mcnemar, paired_t_interval, welch_t_interval

Test = Literal["mcnemar", "paired-t", "welch-t"]

LEVEL = 0.05
SEEDS_FOR_T = 3


@dataclass(frozen=True)
class Pair:
    """A run of a row and a run of the baseline.

    Attributes:
        seeds: theirs.
        discordant: how many images the first alone gets right, and how many the second alone.
    """

    seeds: tuple[int, int]
    discordant: tuple[int, int]


@dataclass(frozen=True)
class Difference:
    """A row's accuracy less the baseline's, in one column.

    Attributes:
        test: ``paired-t`` of three or more seeds, the same in both rows; ``welch-t`` of three or more seeds each; else
            ``mcnemar`` of runs on the same images.
        difference: of the means, as a fraction.
        p_value: two-sided; under McNemar's test the largest over all pairs of runs.
        adjusted: after Holm's correction over the rows that are compared with the baseline.
        interval: of the difference at 95 %, uncorrected; ``None`` under McNemar's test.
        pairs: of runs, this row's first; none under a t test.
    """

    test: Test
    difference: float
    p_value: float
    adjusted: float
    interval: tuple[float, float] | None = None
    pairs: tuple[Pair, ...] = ()

    @property
    def marked(self) -> bool:
        """Whether chance alone would seldom make such a difference."""
        return self.adjusted < LEVEL

    def to_json(self) -> dict[str, Any]:
        """Its fields; absent is null."""
        return {**dataclasses.asdict(self), "marked": self.marked}


def differences(
    rows: Sequence[Row], baseline: Row, which: CheckpointName, columns: Sequence[str]
) -> dict[str, Mapping[str, Difference]]:
    """Every other row against the baseline, in every column; Holm's correction is over the rows of a column.

    Returns:
        Row name to column name to difference; a row without measurements is left out.
    """
    others = [row for row in rows if row is not baseline and row.has(which)] if baseline.has(which) else []
    found: dict[str, dict[str, Difference]] = {row.name: {} for row in others}
    for column in columns:
        tested = [_test(row, baseline, which, column) for row in others]
        for row, one, adjusted in zip(others, tested, holm([one.p_value for one in tested]), strict=True):
            found[row.name][column] = dataclasses.replace(one, adjusted=adjusted)
    return dict(found)


def _test(row: Row, baseline: Row, which: CheckpointName, column: str) -> Difference:
    if min(len(row.seeds), len(baseline.seeds)) < SEEDS_FOR_T:
        return _mcnemar(row, baseline, which, column)
    mine, theirs = ([int(bits.sum()) for bits in each.bits(which, column)] for each in (row, baseline))
    paired = row.seeds == baseline.seeds
    # On counts, whose differences are exact: equal ones have no spread at all, rather than a rounding error's.
    interval = paired_t_interval(mine, theirs) if paired else welch_t_interval(mine, theirs)
    images = len(row.bits(which, column)[0])
    return Difference(
        test="paired-t" if paired else "welch-t",
        difference=interval.difference / images,
        p_value=interval.p_value,
        adjusted=interval.p_value,
        interval=(interval.low / images, interval.high / images),
    )


def _mcnemar(row: Row, baseline: Row, which: CheckpointName, column: str) -> Difference:
    """Of every run of the one with every run of the other, and the largest p-value of all: no lucky pair decides."""
    pairs = [
        Pair((mine, theirs), (int((a & ~b).sum()), int((b & ~a).sum())))
        for mine, a in zip(row.seeds, row.bits(which, column), strict=True)
        for theirs, b in zip(baseline.seeds, baseline.bits(which, column), strict=True)
    ]
    # Pairs that point both ways say nothing of the rows.
    agree = len({pair.discordant[0] > pair.discordant[1] for pair in pairs}) == 1
    p_value = max(mcnemar(*pair.discordant) for pair in pairs) if agree else 1.0
    mean, of_baseline = (each.accuracy(which, column) or (0.0, None) for each in (row, baseline))
    return Difference("mcnemar", mean[0] - of_baseline[0], p_value, p_value, pairs=tuple(pairs))
