"""One run from its configuration to its checkpoints: prepare, resume, fit, finish."""

from __future__ import annotations

import gc
import platform
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from compressor.checkpoint import LoadedCheckpoint, save_checkpoint
from compressor.core.reporting import Reporter
from compressor.data.datasets import take_balanced
from compressor.evaluation.quick import QuickAccuracy, measure
from compressor.models.classifier import build_empty_network, count_parameters
from compressor.runs.choices import Choices
from compressor.runs.run import Run
from compressor.system.devices import uses_tf32
from compressor.system.files import write_json
from compressor.system.interruption import StopRequest
from compressor.system.memory import keep_freed_memory
from compressor.training.configuration import RunConfig
from compressor.training.loop import State, Trainer
from compressor.training.parallel import Parallel
from compressor.training.preparation import Prepared, prepare
from compressor.training.setup import assemble
from compressor.training.teaching.teacher import FrozenTeacher, teacher_warnings
from compressor.training.timing import profile
from compressor.version import __version__

_CHECK_IMAGES = 200
_CHECK_STEPS = 10


def train(
    config: RunConfig,
    teacher: LoadedCheckpoint | None,
    *,
    reporter: Reporter,
    stop: StopRequest,
) -> Run:
    """Train as the recipe says, or go on where the run folder stands.

    Under a launcher every process calls this; process 0 alone writes.

    Raises:
        CompressError: see ``prepare`` and ``Trainer.fit``. Interrupted: a signal came; the state is saved.
    """
    parallel = Parallel.enter(config.device)
    prepared = prepare(config, teacher, parallel.process_group, reporter)
    saved = config.folder.load_state()
    state = _restore_state(saved) if saved else State()
    if saved and _is_done(config, state):
        reporter.note(f"training is done already: {config.folder.path}")
        return _finished(config, state)
    session = _resume(prepared, parallel, saved, reporter)
    session.fit(state, stop)
    session.finish()
    return _finished(config, state)


@dataclass(frozen=True)
class _Session:
    """A run between its start and its end: what is trained, and what is written of it."""

    prepared: Prepared
    trainer: Trainer
    choices: Choices
    reporter: Reporter

    def fit(self, state: State, stop: StopRequest) -> None:
        """Train from ``state`` to the last epoch."""
        trainer, recipe = self.trainer, self.trainer.recipe
        among = f" in {trainer.process_group.size} processes" if trainer.process_group.size > 1 else ""
        self.reporter.phase(f"Training {recipe.model} with {recipe.method}{among}")
        if trainer.device.type == "cpu":
            # Only now: what the start has freed goes back first. Traced graphs hold themselves, and wait for the
            # collector.
            gc.collect()
            keep_freed_memory()
        trainer.fit(state, save=self._save, on_epoch=self._end_epoch, reporter=self.reporter, stop=stop)

    def finish(self) -> None:
        """Tell what the label cache gave, and wait until process 0 has written everything."""
        trainer = self.trainer
        if (answers := trainer.batch_loader.soft_labels) is not None:
            asked, answered = trainer.process_group.sum([answers.asked, answers.answered])
            if asked:
                self.reporter.note(f"the label cache gave {answered / asked:.0%} of {asked:,.0f} soft labels")
        trainer.process_group.wait()

    def _save(self, state: State) -> None:
        trainer, folder = self.trainer, self.prepared.config.folder
        if not trainer.process_group.is_main:
            return
        folder.write_records(folder.metrics, state.records)
        folder.write_records(folder.timings, state.timings)
        if trainer.watch.profile:
            write_json(folder.profile, profile(state.timings, trainer.watch.read()))
        folder.save_state({"state": dict(vars(state)), **trainer.snapshot()})

    def _end_epoch(self, state: State, validation: QuickAccuracy) -> None:
        trainer, folder, recipe = self.trainer, self.prepared.config.folder, self.trainer.recipe
        is_best = state.best_epoch == state.epoch - 1
        if trainer.process_group.is_main:
            metadata = _checkpoint_metadata(self.prepared, self.choices, state.epoch, validation)
            save_checkpoint(folder.last, trainer.average.model, metadata)
            if is_best:
                save_checkpoint(folder.best, trainer.average.model, metadata)
        self.reporter.note(
            f"epoch {state.epoch}/{recipe.epochs}: validation clean {validation.clean:.1%}, "
            f"PGD-{recipe.selection_steps} {validation.robust:.1%}" + (" (best so far)" if is_best else "")
        )


def _resume(prepared: Prepared, parallel: Parallel, saved: dict[str, Any] | None, reporter: Reporter) -> _Session:
    """Put the run's parts together, in the state that was saved, or fresh with a look at the teacher."""
    config, teacher = prepared.config, prepared.teacher
    recipe = config.recipe
    reporter.note(
        f"{'model' if teacher is None else 'student'} {recipe.model}: "
        f"{count_parameters(build_empty_network(config.spec)):,} parameters; {len(prepared.training):,} training and "
        f"{len(prepared.validation):,} validation images; {recipe.method}, {recipe.threat}, seed {recipe.seed}"
    )
    trainer, choices = assemble(prepared, parallel, saved, reporter)
    if trainer.process_group.is_main:
        write_json(config.folder.environment, _environment(trainer.device, trainer.process_group.size))
    if trainer.teacher is not None and not saved:
        _look_at_teacher(trainer.teacher, prepared, trainer, reporter)
    if saved:
        trainer.restore(saved)
    return _Session(prepared, trainer, choices, reporter)


def _is_done(config: RunConfig, state: State) -> bool:
    return state.epoch >= config.recipe.epochs and config.folder.best.is_file() and config.folder.last.is_file()


def _finished(config: RunConfig, state: State) -> Run:
    return Run(config.folder.path, config.recipe, state.best_epoch + 1, tuple(state.records), config.dataset)


def _checkpoint_metadata(prepared: Prepared, choices: Choices, epoch: int, validation: QuickAccuracy) -> dict[str, Any]:
    """What a checkpoint says of itself: no time and no path, so that equal work gives equal bytes."""
    recipe, dataset, inputs = prepared.config.recipe, prepared.config.dataset, prepared.inputs
    return {
        "recipe": recipe.to_dict(),
        "choices": choices.to_dict(),
        "dataset": {
            "name": dataset.name,
            "class_names": list(dataset.class_names),
            "train_sha256": inputs["train_sha256"],
        },
        "threat": {"norm": recipe.norm, "eps": recipe.eps},
        "parent_sha256": inputs.get("teacher_sha256"),
        "epoch": epoch,
        "selection": {
            "split": "validation",
            "samples": validation.samples,
            "clean_correct": validation.clean_correct,
            "robust_correct": validation.robust_correct,
        },
    }


def _environment(device: torch.device, processes: int) -> dict[str, Any]:
    """Versions, device, processes, threads, TF32: what it takes to judge a run. Nothing that names the machine."""
    return {
        "compress": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": platform.system(),
        "processor": platform.machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "processes": processes,
        "threads": torch.get_num_threads(),
        "tf32": uses_tf32(device),
    }


def _look_at_teacher(teacher: FrozenTeacher, prepared: Prepared, trainer: Trainer, reporter: Reporter) -> None:
    reporter.phase("Looking at the teacher")
    sample = take_balanced(prepared.validation, min(_CHECK_IMAGES, len(prepared.validation)), seed=0)
    started = time.monotonic()
    found = measure(
        teacher.classifier,
        torch.from_numpy(sample.images),
        torch.from_numpy(sample.labels),
        trainer.recipe.threat,
        steps=_CHECK_STEPS,
        seed=0,
        device=trainer.device,
        process_group=trainer.process_group,
    )
    seconds = time.monotonic() - started
    reporter.note(
        f"teacher on {found.samples} validation images: clean {found.clean:.1%}, "
        f"PGD-{_CHECK_STEPS} {found.robust:.1%}, mean soft-label entropy {found.entropy:.2f} nats ({seconds:.0f} s)"
    )
    for warning in teacher_warnings(found, len(prepared.config.dataset.class_names)):
        reporter.warn(warning)


def _restore_state(saved: dict[str, Any]) -> State:
    state = State(**saved["state"])
    state.best = (float(state.best[0]), float(state.best[1]))
    return state
