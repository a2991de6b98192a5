"""A run whose training is done: its checkpoints, and what validation said of each epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from compressor.core.contracts import Dataset
from compressor.core.notebook import html_table, percent
from compressor.runs.recipe import Recipe
from compressor.runs.run_folder import RunFolder


@dataclass(frozen=True)
class Run:
    """A finished run. It stands for its folder wherever a path is taken (``os.fspath``).

    Attributes:
        path: the run folder.
        recipe: what was done.
        best_epoch: the epoch, from 1, whose validation accuracy was best.
        metrics: for each epoch a record with ``epoch``, ``learning_rate``, ``loss``, ``validation`` and ``best``.
        dataset: what it was trained on.
    """

    path: Path
    recipe: Recipe
    best_epoch: int
    metrics: tuple[dict[str, Any], ...]
    dataset: Dataset = field(repr=False, compare=False)

    @cached_property
    def folder(self) -> RunFolder:
        """The files of the run."""
        return RunFolder(self.path)

    @property
    def best(self) -> Path:
        """The checkpoint with the best validation accuracy."""
        return self.folder.best

    @property
    def last(self) -> Path:
        """The checkpoint after the last epoch."""
        return self.folder.last

    def __fspath__(self) -> str:
        return str(self.path)

    def to_json(self) -> dict[str, Any]:
        """Return the run as JSON values: paths, the best epoch, the recipe and the metrics."""
        return {
            "schema": "compress.run/1",
            "run": str(self.path),
            "best": str(self.best),
            "last": str(self.last),
            "best_epoch": self.best_epoch,
            "recipe": self.recipe.to_dict(),
            "metrics": [dict(record) for record in self.metrics],
        }

    def _repr_html_(self) -> str:
        """Return a table of the epochs, for a notebook."""
        attacked = f"pgd_{self.recipe.selection_steps}_accuracy"
        rows = [
            (
                f"{record['epoch']}{' (best)' if record['epoch'] == self.best_epoch else ''}",
                f"{record['loss'].get('total', float('nan')):.4f}",
                percent(record["validation"]["clean_accuracy"]),
                percent(record["validation"][attacked]),
            )
            for record in self.metrics
        ]
        title = f"{self.path}: {self.recipe.model}, {self.recipe.method}, {self.recipe.threat}, seed {self.recipe.seed}"
        columns = ["epoch", "loss", "validation, clean", f"validation, PGD-{self.recipe.selection_steps}"]
        return html_table(title, columns, rows)
