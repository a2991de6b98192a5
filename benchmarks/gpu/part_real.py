"""A real run: RSLAD on all training pictures for as many epochs as the budget holds, then its attacked accuracy."""

from __future__ import annotations

import json
import shutil
import signal
import tempfile
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu import packed
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.results import Results
from benchmarks.gpu.schedule import Pace, epochs_within, read_pace
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.splitting import digest, join_command, split
from benchmarks.gpu.turns import synchronize
from benchmarks.gpu.variants import REAL
from benchmarks.noise import Noise
from compressor.checkpoint import LoadedCheckpoint, load_checkpoint, save_checkpoint
from compressor.core.contracts import Dataset, Split
from compressor.core.errors import Interrupted
from compressor.core.reporting import SilentReporter
from compressor.core.types import DatasetSpec, ModelSpec
from compressor.data.datasets import open_dataset, take, take_balanced
from compressor.evaluation.evaluate import evaluate
from compressor.evaluation.suites import Suite, SuiteColumn, get_suite
from compressor.frozen import FrozenPrecision
from compressor.models.classifier import build_classifier
from compressor.runs.recipe import Recipe, resolve
from compressor.runs.run_folder import RunFolder
from compressor.system.interruption import StopRequest
from compressor.training import session
from compressor.training.configuration import RunConfig
from compressor.training.preparation import training_images
from compressor.training.teacher_file import settle_open_questions

ROOT = Path(__file__).resolve().parent.parent.parent
PGD = Suite("pgd", 1, "PGD-20 alone", (SuiteColumn("PGD-20", "pgd-sat", {"step_size": "0.25eps"}),))


@dataclass(frozen=True)
class Sizes:
    """What is trained, and for how long at most.

    Attributes:
        student: full width.
        pilot_steps: steps that are timed before the schedule is set.
        warm_up: of them, the first that are not counted.
        reserve: seconds that training leaves for the evaluation.
        batch: images attacked at once.
        most_epochs: of the schedule.
        autoattack: the suite that runs block by block.
    """

    student: str = "resnet18"
    pilot_steps: int = 80
    warm_up: int = 30
    reserve: float = 130.0
    batch: int = 250
    most_epochs: int = 300
    autoattack: Suite = field(default_factory=partial(get_suite, "standard"))


SMOKE = Sizes(
    "resnet18-0.125",
    pilot_steps=4,
    warm_up=1,
    reserve=5.0,
    batch=4,
    most_epochs=2,
    autoattack=Suite(
        "smoke", 1, "a little", (SuiteColumn("AA", "autoattack", {"steps": 1, "targets": 1, "queries": 3}),)
    ),
)


def run(settings: Settings, results: Results, clock: Clock) -> None:
    """Train, bring the checkpoint home, attack it; then the same without a teacher if time is left."""
    sizes = SMOKE if settings.smoke else Sizes(settings.student)
    dataset, teacher = _inputs(settings, results)
    real = RealRun(sizes, dataset, settings, results, clock)
    budget = min(settings.train_seconds, clock.left - sizes.reserve)
    started = time.monotonic()
    epochs = real.train_and_attack("rslad", teacher, budget, most=sizes.most_epochs)
    took = time.monotonic() - started
    if not epochs or not clock.has(took):
        results.add("real", "skipped", what="SAT of the same length", why=f"{max(clock.left, 0):.0f} s were left")
        return
    real.train_and_attack("sat", None, clock.left - sizes.reserve, most=epochs)


@dataclass(frozen=True)
class RealRun:
    """What all trainings of the part share."""

    sizes: Sizes
    dataset: Dataset
    settings: Settings
    results: Results
    clock: Clock

    @property
    def device(self) -> torch.device:
        """Where everything is computed."""
        return torch.device(self.settings.device)

    def train_and_attack(self, method: str, teacher: LoadedCheckpoint | None, budget: float, *, most: int) -> int:
        """Time a few steps, set the schedule by them, train, and attack the best and the last checkpoint.

        Args:
            method: whose published recipe is shortened.
            teacher: settled; None for a method that asks none.
            budget: seconds for the training, the timed steps included.
            most: epochs.

        Returns:
            The epochs that were finished.
        """
        budget_clock = Clock(budget)
        training, _ = training_images(self.dataset, self._recipe(method))
        steps = -(-len(training) // self._recipe(method).batch_size)
        pace = self._measure_pace(method, teacher, min(self.sizes.pilot_steps, steps))
        left = budget_clock.left
        epochs = epochs_within(0.95 * left, pace, steps, most=most)
        self.results.add(
            "real", "schedule", method=method, student=self.sizes.student, epochs=epochs, steps_per_epoch=steps,
            seconds_for_training=left, measured=asdict(pace), expected_seconds=pace.seconds(steps, epochs),
        )  # fmt: skip
        recipe = self._recipe(method, epochs=epochs)
        # A little more than planned, so that the last epochs, whose learning rate is small, are not cut off.
        folder = self._train(recipe, teacher, Clock(min(1.15 * left, self.clock.left)))
        finished = len(_records(folder.metrics))
        if not finished:
            self.results.add("real", "failure", what=method, error="Training was stopped before its first epoch ended.")
            return 0
        if teacher is not None:
            _bring_home(folder.best, method, self.results)
        self._attack_both(method, folder, recipe)
        shutil.rmtree(folder.path, ignore_errors=True)
        return finished

    def _recipe(self, method: str, **flags: Any) -> Recipe:
        """The method's published recipe with the real run's precisions, and ``flags`` over it."""
        common: dict[str, Any] = {"train_samples": self.settings.train_images}
        if self.settings.smoke:
            common["batch_size"] = 8
        file = ROOT / "recipes" / f"{method}-cifar10.toml"
        return resolve(method, self.sizes.student, file, common | dict(REAL.recipe) | flags)

    def _measure_pace(self, method: str, teacher: LoadedCheckpoint | None, steps: int) -> Pace:
        """Train for one short epoch as the real run will, and time its steps, its start and its end."""
        recipe = self._recipe(method, epochs=1, train_samples=self._recipe(method).batch_size * steps)
        stamps = _Stamps(self.device)
        started = time.monotonic()
        with tempfile.TemporaryDirectory(dir=self.settings.work, prefix="pilot-") as folder:
            session.train(self._request(recipe, Path(folder)), teacher, reporter=stamps, stop=StopRequest())
            ended = time.monotonic()
        return read_pace(started, stamps.ends, ended, warm_up=min(self.sizes.warm_up, (steps - 1) // 2))

    def _train(self, recipe: Recipe, teacher: LoadedCheckpoint | None, clock: Clock) -> RunFolder:
        """Train until the schedule or the clock ends, and record each epoch."""
        folder = Path(tempfile.mkdtemp(dir=self.settings.work, prefix=f"run-{recipe.method}-"))
        request, stop = self._request(recipe, folder), StopRequest()
        reporter = _Printer(clock, stop)
        started, stopped = time.monotonic(), False
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        try:
            session.train(request, teacher, reporter=reporter, stop=stop)
        except Interrupted:
            stopped = True
        synchronize(self.device)
        run = request.folder
        self.results.add(
            "real", "training", method=recipe.method, recipe=recipe.to_dict(), seconds=time.monotonic() - started,
            stopped_by_budget=stopped, notes=reporter.notes, epochs=_records(run.metrics),
            timings=_records(run.timings), choices=_choices(run), gpu_bytes=_peak_memory(self.device),
        )  # fmt: skip
        return run

    def _request(self, recipe: Recipe, folder: Path) -> RunConfig:
        return RunConfig(recipe, self.dataset, RunFolder(folder), self.device, **REAL.request)

    def _attack_both(self, method: str, folder: RunFolder, recipe: Recipe) -> None:
        """PGD-20 on both checkpoints, then AutoAttack on both; each attack gets its share of the time that is left."""
        test = take_balanced(self.dataset.load("test"), self.settings.test_images, seed=0)
        files = {"best": folder.best, "last": folder.last}
        if digest(folder.best) == digest(folder.last):
            files = {"best and last": folder.best}
        evaluations = [(suite, which) for suite in (PGD, self.sizes.autoattack) for which in files]
        slowest: dict[str, float] = {}
        for number, (suite, which) in enumerate(evaluations):
            clock = Clock(self.clock.left / (len(evaluations) - number))
            done = _attack(files[which], test, recipe, suite, self.sizes.batch, self.device, clock, slowest)
            about = {"method": method, "checkpoint": which, "suite": str(suite)}
            if done["images"]:
                self.results.add("real", "accuracy", **about, threat=str(recipe.threat), **done)
            else:
                self.results.add("real", "skipped", what=f"{suite} on {which}", why="too little time was left")


def _inputs(settings: Settings, results: Results) -> tuple[Dataset, LoadedCheckpoint]:
    """The pictures, decoded, and the settled teacher."""
    started = time.monotonic()
    if settings.smoke:
        dataset: Dataset = Noise(64, test=8)
        path = settings.work / "teacher.safetensors"
        save_checkpoint(path, build_classifier(ModelSpec("wideresnet-10-1", 10), seed=1), {})
    else:
        if settings.packed is None:
            raise ValueError(
                "The real run needs pictures and a teacher: name the folder that pack.py filled, by --packed."
            )
        folder = packed.unpack_pictures(settings.packed, settings.work)
        dataset = open_dataset(DatasetSpec("imagefolder", str(folder)))
        path = packed.teacher(settings.packed)
    counts = {split: len(dataset.load(split)) for split in ("train", "test")}
    loaded = settle_open_questions(load_checkpoint(path), dataset, reporter=_Printer())
    results.add("real", "inputs", images=counts, teacher=path.name, seconds=round(time.monotonic() - started, 1))
    return dataset, loaded


def _attack(
    path: Path,
    test: Split,
    recipe: Recipe,
    suite: Suite,
    batch: int,
    device: torch.device,
    clock: Clock,
    slowest: dict[str, float],
) -> dict[str, Any]:
    """Attack test images block by block, as far as the time allows.

    Args:
        path: the checkpoint.
        test: the images.
        recipe: of the training; its threat is the evaluation's.
        suite: of one attack.
        batch: images in a block.
        device: where to compute.
        clock: of this attack.
        slowest: seconds of each suite's slowest block so far; updated.

    Returns:
        Counts and seconds.
    """
    model = load_checkpoint(path).classifier.eval().to(device)
    proposals: FrozenPrecision = "bf16" if device.type == "cuda" else "fp32"
    ((column, _),) = suite.attacks
    counts = {"images": 0, "clean": 0, "robust": 0}
    started = time.monotonic()
    for first in range(0, len(test), batch):
        if not clock.has(slowest.get(str(suite), 0.0)):
            break
        block_started = time.monotonic()
        block = take(test, np.arange(first, min(first + batch, len(test))))
        report = evaluate(
            model, block.images, block.labels, recipe.threat, suite, seed=0,
            batch_size=batch, device=device, proposals=proposals, soundness=False,
        )  # fmt: skip
        counts["images"] += len(block)
        counts["clean"] += int(report.clean.sum())
        counts["robust"] += int(report.attacks[column].sum())
        slowest[str(suite)] = max(slowest.get(str(suite), 0.0), time.monotonic() - block_started)
    return counts | {
        "attack": column,
        "of_images": len(test),
        "proposals": proposals,
        "seconds": time.monotonic() - started,
    }


def _bring_home(checkpoint: Path, method: str, results: Results) -> None:
    """Copy a checkpoint into the results in pieces: whole and in fp32, since the figures are those of these weights."""
    named = checkpoint.with_name(f"{method}-{checkpoint.name}")
    shutil.copyfile(checkpoint, named)
    sha256 = digest(named)
    pieces = split(named, results.folder)
    named.unlink()
    results.add(
        "real", "checkpoint", file=named.name, sha256=sha256, bytes=checkpoint.stat().st_size,
        pieces=[piece.name for piece in pieces], join=join_command(named.name, sha256),
    )  # fmt: skip


def _records(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()] if path.is_file() else []


def _choices(run_folder: RunFolder) -> Any:
    return json.loads(run_folder.choices.read_text()) if run_folder.choices.is_file() else None


def _peak_memory(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


class _Stamps(SilentReporter):
    """Notes when each step was over, the device waited for: the last ones must not be queued only."""

    def __init__(self, device: torch.device) -> None:
        self.ends: list[float] = []
        self._device = device

    def advance(self, done: int, total: int, detail: str = "") -> None:
        """A step is over."""
        synchronize(self._device)
        self.ends.append(time.monotonic())


class _Printer(SilentReporter):
    """Prints what a run says, and asks it to stop when its clock has run out."""

    def __init__(self, clock: Clock | None = None, stop: StopRequest | None = None) -> None:
        self.notes: list[str] = []
        self._clock, self._stop = clock, stop

    def phase(self, title: str) -> None:
        """Print it."""
        print(f"real: {title}", flush=True)

    def note(self, text: str) -> None:
        """Print and keep it."""
        print(f"real: {text}", flush=True)
        self.notes.append(text)

    def warn(self, text: str) -> None:
        """Print and keep it."""
        self.note(f"warning: {text}")

    def advance(self, done: int, total: int, detail: str = "") -> None:
        """Look at the clock."""
        if self._clock is not None and self._stop is not None and not self._clock.has(0):
            self._stop.signum = signal.SIGTERM
