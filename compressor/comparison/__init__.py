"""Finished runs side by side: what was measured of them, over seeds, and whether they differ by more than chance."""

from compressor.comparison.runs import FinishedRun, open_run

__all__ = ["FinishedRun", "open_run"]
