"""The whole way, from a teacher's file to a verdict: what ``distill`` and ``demo`` do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cli.output.console import Output
from cli.output.tables import artifact_json
from cli.stages.evaluation import CheckpointChoice
from cli.stages.exporting import export_and_verify
from cli.stages.inputs import Inputs, default_data
from cli.stages.recipes import resolve_recipe_file
from cli.stages.run_stages import (
    Extras,
    Trained,
    check_before_training,
    evaluate_run,
    make_recipe,
    run_folder,
    train_run,
)
from compressor.checkpoint import LoadedCheckpoint, load_checkpoint, normalization_name
from compressor.core.contracts import Dataset
from compressor.evaluation.evaluate import Report
from compressor.runs.recipe import Recipe, foreign_settings, read_recipe_file
from compressor.runs.run_folder import RunFolder
from compressor.system import launch
from compressor.system.devices import set_threads
from compressor.system.interruption import StopRequest
from compressor.training.session import (
    TeacherRequest,
    TrainingRequest,
    check_request,
    read_teacher,
    settle_open_questions,
)
from exporters.artifact.artifact import Exporter, ExportSettings
from exporters.verification import Verdict


@dataclass(frozen=True)
class Distillation:
    """What ``distill`` and ``demo`` ask for: the whole way from a teacher's file to a verdict.

    ``run`` is the run's folder, or None for the default one; ``within`` is where the default one lies, if not in
    ``runs``.
    """

    teacher: TeacherRequest
    inputs: Inputs
    recipe_file: Path | None
    flags: Mapping[str, Any]
    run: Path | None
    resume: bool
    suite: str
    eval_samples: int | None
    evidence_samples: int
    extras: Extras
    evaluate: CheckpointChoice = "best"
    within: Path | None = None


@dataclass(frozen=True)
class Distilled:
    """What became of it."""

    trained: Trained
    report: Report
    export: dict[str, Any]
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """The fields of ``distill``."""
        return self.trained.to_json(self.report) | {"onnx": self.export["path"], "verdict": self.verdict.answer}


@dataclass(frozen=True)
class Opened:
    """What all runs of one command share, read once: the teacher, as far as its file tells, and the data."""

    teacher: LoadedCheckpoint
    dataset: Dataset
    device: torch.device
    recipe_file: Path | None


@dataclass(frozen=True)
class Plan:
    """One run, checked as far as it can be before anything is computed."""

    request: Distillation
    recipe: Recipe
    folder: RunFolder

    @property
    def needs_teacher(self) -> bool:
        """Whether the method asks a teacher anything."""
        return self.recipe.build_method().teacher_at != "nothing"


def distill_run(request: Distillation, *, output: Output, stop: StopRequest) -> Distilled | None:
    """Teacher, training, attacks, export, verification.

    Under a launcher the processes train and attack together; the first exports and verifies, and the others get None.
    """
    opened = open_inputs(request, output)
    plan = make_plan(request, opened)
    teacher = settle_teacher(opened, [plan], output)
    return carry_out(plan, opened, teacher, output=output, stop=stop)


def open_inputs(request: Distillation, output: Output) -> Opened:
    """Read the teacher's file and open the data that goes with it."""
    inputs, wanted = request.inputs, request.flags.get("image_size")
    device = inputs.device()
    recipe_file = resolve_recipe_file(request.recipe_file)
    if wanted is None and recipe_file is not None:
        wanted = read_recipe_file(recipe_file).get("image_size")
    loaded = read_teacher(request.teacher, image_size=wanted)
    dataset = inputs.open(lambda: default_data(loaded), loaded.spec.image_size, output)
    return Opened(loaded, dataset, device, recipe_file)


def make_plan(request: Distillation, opened: Opened) -> Plan:
    """Resolve a run's recipe, and refuse now what would otherwise stop it after hours of training."""
    flags = {**request.flags, "image_size": opened.teacher.spec.image_size}
    recipe = make_recipe("rslad", "mobilenetv2", opened.recipe_file, flags, opened.dataset.name)
    folder = run_folder(recipe, opened.dataset, request.run)
    if request.within is not None:
        folder = RunFolder(request.within / folder.path.name)
    check_before_training(opened.dataset, request.suite, folder, resume=request.resume)
    training = TrainingRequest(
        recipe, opened.dataset, folder, opened.device, request.resume, extra_data=request.inputs.extra_data
    )
    check_request(training, has_teacher=True)
    return Plan(request, recipe, folder)


def settle_teacher(opened: Opened, plans: Sequence[Plan], output: Output) -> LoadedCheckpoint | None:
    """The teacher with nothing left open, once for all runs; None where no method asks it."""
    asking = [plan for plan in plans if plan.needs_teacher]
    for plan in plans:
        if not plan.needs_teacher:
            output.note(f"the method {plan.recipe.method} asks no teacher: {plan.folder.path} trains without it")
    if not asking:
        return None
    known = (_settled_before(opened.teacher, plan) for plan in asking)
    loaded = next((found for found in known if found is not None), opened.teacher)
    return settle_open_questions(loaded, opened.dataset, reporter=output, device=opened.device)


def carry_out(
    plan: Plan, opened: Opened, teacher: LoadedCheckpoint | None, *, output: Output, stop: StopRequest
) -> Distilled | None:
    """Train, attack, export and verify; None in all processes but the first."""
    request, recipe = plan.request, plan.recipe
    if foreign := foreign_settings(opened.recipe_file, recipe):
        output.warn(foreign)
    trained = train_run(
        recipe, opened.dataset, request.inputs, teacher if plan.needs_teacher else None,
        run=plan.folder.path, resume=request.resume, extras=request.extras, output=output, stop=stop,
    )  # fmt: skip
    report = evaluate_run(
        trained, request.suite, request.eval_samples, wanted=request.evaluate,
        device=opened.device, output=output, stop=stop,
    )  # fmt: skip
    if launch.rank() != 0:
        return None
    settings = ExportSettings(
        samples=request.evidence_samples, seed=recipe.seed, threads=set_threads(request.inputs.threads)
    )
    exporter = Exporter(load_checkpoint(trained.run.best), opened.dataset, recipe.threat, settings)
    exported = export_and_verify(exporter, "fp32", trained.run.onnx, output=output, stop=stop)
    return Distilled(trained, report, artifact_json(exported), exported.verdict)


def _settled_before(loaded: LoadedCheckpoint, plan: Plan) -> LoadedCheckpoint | None:
    """The teacher as an earlier start of the same run settled it, so that nothing is measured twice."""
    recorded = plan.folder.recorded_inputs()
    if not loaded.open_questions or recorded.get("teacher_sha256") != loaded.sha256:
        return None
    for spec in loaded.open_questions:
        settled = normalization_name(spec.normalization), spec.activation
        if settled == (recorded.get("teacher_normalization"), recorded.get("teacher_activation")):
            return load_checkpoint(
                plan.request.teacher.path,
                model=plan.request.teacher.model,
                normalization=spec.normalization or "none",
                activation=spec.activation,
                image_size=spec.image_size,
            )
    return None
