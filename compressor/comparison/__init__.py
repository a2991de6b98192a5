"""Finished runs side by side: what was measured of them, over seeds, and whether they differ by more than chance."""

from compressor.comparison.rows import Row, differing
from compressor.comparison.runs import FinishedRun, open_run
from compressor.comparison.significance import LEVEL, Difference
from compressor.comparison.table import CHECKPOINTS, Comparison, compare_runs

__all__ = [
    "CHECKPOINTS",
    "LEVEL",
    "Comparison",
    "Difference",
    "FinishedRun",
    "Row",
    "compare_runs",
    "differing",
    "open_run",
]
