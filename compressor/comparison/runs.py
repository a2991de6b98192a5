"""Finished runs, read from their folders: what they were told, and what was measured of them."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.core.errors import CompressError, MissingInputError, UnreadableRunError
from compressor.core.types import Threat
from compressor.evaluation.record import CheckpointName, EvaluationRecord, read_evaluation
from compressor.runs.recipe import Recipe
from compressor.runs.run_folder import RunFolder
from compressor.system.files import sha256_file

_NOT_A_RUN = "Name folders that `compress distill` or `compress train` made."


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run whose training is done.

    Attributes:
        folder: where it lies.
        recipe: every field of the recipe; what an older version did not know has its default.
        inputs: digests of what it was trained on, and by which teacher.
    """

    folder: RunFolder
    recipe: Mapping[str, Any]
    inputs: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.folder.path)

    @property
    def seed(self) -> int:
        """Of its training."""
        return int(self.recipe["seed"])

    @property
    def threat(self) -> Threat:
        """What it was trained against."""
        return Threat(self.recipe["norm"], self.recipe["eps"])

    def evaluation(self, which: CheckpointName) -> EvaluationRecord:
        """What was measured of its best or last checkpoint.

        Raises:
            UnreadableRunError: nothing, or something damaged, or it was measured before training went on.
        """
        record = read_evaluation(self.folder.evaluation_of(which))
        checkpoint = self.folder.checkpoint_of(which)
        if checkpoint.is_file() and sha256_file(checkpoint) != record.measured.sha256:
            raise UnreadableRunError(
                f"{self.folder.evaluation_of(which)} is about another {checkpoint.name} than the one beside it.",
                f"Measure again: compress compare --evaluate both {self.name}.",
            )
        return record


def open_run(path: Path) -> FinishedRun:
    """Read a run folder's recipe and check that its training is done.

    Raises:
        MissingInputError: no such folder, or it is no run folder. UnreadableRunError: unfinished or damaged.
    """
    folder = RunFolder(path)
    if not path.is_dir():
        raise MissingInputError(f"there is no folder {path}.", _NOT_A_RUN)
    if not folder.recipe.is_file():
        inside = sum(1 for _ in path.glob(f"*/{folder.recipe.name}"))
        hint = f"It holds {inside} runs: name them, as {path}/*." if inside else _NOT_A_RUN
        raise MissingInputError(f"{path} is not a run folder: it has no {folder.recipe.name}.", hint)
    try:
        values = tomllib.loads(folder.recipe.read_text(encoding="utf-8"))
        run = _parse(folder, values)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError, KeyError, TypeError, CompressError) as error:
        raise UnreadableRunError(f"{folder.recipe} is damaged: {error}.", _NOT_A_RUN) from None
    done, wanted = _epochs_done(folder), run.recipe["epochs"]
    if done < wanted:
        raise UnreadableRunError(
            f"the run {path} is not finished: it has done {done} of {wanted} epochs.",
            "Go on with it: the command that started it, with --resume.",
        )
    return run


def _parse(folder: RunFolder, values: dict[str, Any]) -> FinishedRun:
    inputs = values.pop("inputs", {})
    settings = values.get("method_settings", {})
    recipe: dict[str, Any] = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in {**_defaults(), **values, "method_settings": settings}.items()
    }
    for name, kind in (("method", str), ("model", str), ("seed", int), ("epochs", int), ("image_size", int)):
        if type(recipe.get(name)) is not kind:
            raise TypeError(f"it has no {name}")
    if not isinstance(inputs, dict) or not isinstance(settings, dict):
        raise TypeError("its inputs or its method's settings are no table")
    run = FinishedRun(folder, recipe, inputs)
    _ = run.threat
    return run


def _defaults() -> dict[str, Any]:
    known: dict[str, Any] = {}
    for field in dataclasses.fields(Recipe):
        if field.default is not dataclasses.MISSING:
            known[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            known[field.name] = field.default_factory()
    return known


def _epochs_done(folder: RunFolder) -> int:
    """How many epochs the run has recorded."""
    try:
        lines = folder.metrics.read_text(encoding="utf-8").splitlines()
        return int(json.loads(lines[-1])["epoch"]) if lines else 0
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableRunError(
            f"{folder.metrics} is damaged ({type(error).__name__}).", "Start the run anew in another folder."
        ) from None
