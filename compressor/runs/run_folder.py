"""The run folder: where a run keeps its recipe, state, measurements and results. Every write is atomic."""

from __future__ import annotations

import io
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from compressor.core.errors import RecipeChangedError, RunExistsError, UsageError, WriteError
from compressor.evaluation.record import CheckpointName
from compressor.runs.recipe_files import to_toml
from compressor.system.files import write_bytes, write_text

_LOCK = ".lock"


class RunFolder:
    """Paths and atomic writes of one run; it decides nothing about training."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.toml"
        self.environment = path / "environment.json"
        self.choices = path / "choices.json"
        self.profile = path / "profile.json"
        self.metrics = path / "metrics.jsonl"
        self.timings = path / "timings.jsonl"
        self.last = path / "last.safetensors"
        self.best = path / "best.safetensors"
        self.resume_state = path / "resume.pt"
        self.evaluation = path / "evaluation.json"
        self.last_evaluation = path / "evaluation.last.json"
        self.onnx = path / "model.onnx"

    def checkpoint_of(self, which: CheckpointName) -> Path:
        """The best or the last checkpoint."""
        return {"best": self.best, "last": self.last}[which]

    def evaluation_of(self, which: CheckpointName) -> Path:
        """What was measured of the best or the last checkpoint."""
        return {"best": self.evaluation, "last": self.last_evaluation}[which]

    def evaluation_state_of(self, which: CheckpointName, suite: str) -> Path:
        """What is done so far; a folder for each suite, so that a quick look never costs what a long evaluation has."""
        return self.evaluation_of(which).with_suffix(f".{suite}.state")

    def refuse_unless_enterable(self, *, resume: bool) -> None:
        """Raise RunExistsError where ``start`` would, as far as can be told before anything is computed."""
        if self.recipe.is_file():
            if not resume:
                raise RunExistsError(
                    f"the run {self.path} exists already.", "Add --resume to go on with it, or choose another --run."
                )
        elif self.path.exists() and (not self.path.is_dir() or {entry.name for entry in self.path.iterdir()} - {_LOCK}):
            raise RunExistsError(f"{self.path} exists and is not a run folder.", "Choose another --run.")

    def start(self, description: Mapping[str, Any], *, resume: bool) -> None:
        """Make the folder, or enter it again.

        Args:
            description: what decides the run's result (the recipe and the inputs' digests), as plain values.
            resume: whether an existing folder is to be gone on with.

        Raises:
            RunExistsError: it is there and ``resume`` is off.
            RecipeChangedError: it was started with another description; the differences are named.
        """
        self.refuse_unless_enterable(resume=resume)
        if self.recipe.is_file():
            self._check_unchanged(description)
            return
        write_text(self.recipe, to_toml(description))

    def recorded_inputs(self) -> dict[str, Any]:
        """What an earlier start recorded of the run's inputs; empty where there was none."""
        try:
            recorded = tomllib.loads(self.recipe.read_text(encoding="utf-8")).get("inputs", {})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError):
            return {}
        return recorded if isinstance(recorded, dict) else {}

    def _check_unchanged(self, description: Mapping[str, Any]) -> None:
        try:
            before = tomllib.loads(self.recipe.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise UsageError(f"{self.recipe} cannot be read: {error}.", "Choose another --run.") from None
        was, now = _flatten(before), _flatten(tomllib.loads(to_toml(description)))
        changed = [
            f"{k}: {was.get(k, 'absent')} -> {now.get(k, 'absent')}" for k in {**was, **now} if was.get(k) != now.get(k)
        ]
        if changed:
            raise RecipeChangedError(
                f"the run {self.path} was started with other settings ({'; '.join(changed)}).",
                "Repeat the first command with --resume, or choose another --run.",
            )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one process at a time, so that two runs never write into one place.

        Raises:
            RunExistsError: another living process holds it.
        """
        try:
            import fcntl
        except ImportError:  # Windows has no flock; the run goes on unguarded there.
            yield
            return
        if self.path.exists() and not self.path.is_dir():
            raise RunExistsError(f"{self.path} is a file.", "Choose another --run.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise WriteError(
                f"cannot write into {self.path}: {error.strerror or error}.", "Choose another --run."
            ) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunExistsError(
                    f"another process is writing into {self.path}.", "Wait for it, or choose another --run."
                ) from None
            yield
        finally:
            os.close(descriptor)
            self._leave_nothing_empty()

    def _leave_nothing_empty(self) -> None:
        """Take the lock file and the folder away again where nothing was written between."""
        if self.path.is_dir() and {entry.name for entry in self.path.iterdir()} == {_LOCK}:
            (self.path / _LOCK).unlink(missing_ok=True)
            self.path.rmdir()

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write the resume state: tensors, numbers, strings, lists and dictionaries only."""
        # Through memory: torch.save reports a full disk as a RuntimeError about positions.
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        write_bytes(self.resume_state, buffer.getvalue())

    def load_state(self) -> dict[str, Any] | None:
        """The resume state, or None where the run has not saved one yet.

        Raises:
            UsageError: the file is damaged.
        """
        if not self.resume_state.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self.resume_state, weights_only=True, map_location="cpu")
        except Exception as error:  # torch raises many kinds for a damaged file, and none of them helps the user
            raise UsageError(f"{self.resume_state} is damaged ({type(error).__name__}).", "Start a new run.") from error
        return state

    def write_records(self, path: Path, records: list[dict[str, Any]]) -> None:
        """Write one JSON object a line, the whole file at once, so that resuming never leaves a line twice."""
        write_text(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in records))


def default_run_path(method: str, model: str, dataset: str, seed: int) -> Path:
    """``runs/METHOD-MODEL-DATASET-sSEED``, without the signs in a model's name that some file systems refuse."""
    return Path("runs") / f"{method}-{re.sub('[:+]', '-', model)}-{dataset}-s{seed}"


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
