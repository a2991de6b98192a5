"""The whole way, from a teacher's file to a verdict: what ``distill`` and ``demo`` do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.evaluation import Wanted
from cli.inputs import Inputs, default_data
from cli.output import Output
from cli.recipes import resolve_recipe_file
from cli.stages import (
    Extras,
    Trained,
    check_before_training,
    evaluate_run,
    export_and_verify,
    make_recipe,
    run_folder,
    train_run,
)
from compressor import launch
from compressor.checkpoint import LoadedCheckpoint, load_checkpoint, normalization_name
from compressor.devices import set_threads
from compressor.evaluation import Report
from compressor.training.interruption import StopRequest
from compressor.training.recipe import read_recipe_file
from compressor.training.run_folder import RunFolder
from compressor.training.session import TeacherRequest, TrainingRequest, check_request, read_teacher, settle
from exporters.verification import Verdict


@dataclass(frozen=True)
class Distillation:
    """What ``distill`` and ``demo`` ask for: the whole way from a teacher's file to a verdict."""

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
    evaluate: Wanted = "best"


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


def distill_run(request: Distillation, *, output: Output, stop: StopRequest) -> Distilled | None:
    """Teacher, training, attacks, export, verification.

    Under a launcher the processes train and attack together; the first exports and verifies, and the others get None.
    """
    inputs, wanted = request.inputs, request.flags.get("image_size")
    device = inputs.device()
    recipe_file = resolve_recipe_file(request.recipe_file)
    if wanted is None and recipe_file is not None:
        wanted = read_recipe_file(recipe_file).get("image_size")
    loaded = read_teacher(request.teacher, image_size=wanted)
    dataset = inputs.open(lambda: default_data(loaded), loaded.spec.image_size, output)
    flags = {**request.flags, "image_size": loaded.spec.image_size}
    recipe = make_recipe("rslad", "mobilenetv2", recipe_file, flags, dataset.name)
    folder = run_folder(recipe, dataset, request.run)
    check_before_training(dataset, request.suite, folder, resume=request.resume)
    check_request(TrainingRequest(recipe, dataset, folder, device, request.resume), has_teacher=True)
    teacher = settle(_settled_before(loaded, folder, request), dataset, reporter=output)

    trained = train_run(
        recipe, dataset, inputs, teacher,
        run=folder.path, resume=request.resume, extras=request.extras, output=output, stop=stop,
    )  # fmt: skip
    report = evaluate_run(
        trained, request.suite, request.eval_samples, wanted=request.evaluate, device=device, output=output, stop=stop
    )
    if launch.rank() != 0:
        return None
    export, verdict = export_and_verify(
        load_checkpoint(trained.run.best), dataset, recipe.threat, trained.run.onnx,
        samples=request.evidence_samples, seed=recipe.seed, threads=set_threads(inputs.threads),
        output=output, stop=stop,
    )  # fmt: skip
    return Distilled(trained, report, export, verdict)


def _settled_before(loaded: LoadedCheckpoint, folder: RunFolder, request: Distillation) -> LoadedCheckpoint:
    """The teacher as an earlier start of the same run settled it, so that nothing is measured twice."""
    recorded = folder.recorded_inputs()
    if not loaded.open_questions or recorded.get("teacher_sha256") != loaded.sha256:
        return loaded
    for spec in loaded.open_questions:
        settled = normalization_name(spec.normalization), spec.activation
        if settled == (recorded.get("teacher_normalization"), recorded.get("teacher_activation")):
            return load_checkpoint(
                request.teacher.path,
                normalization=spec.normalization or "none",
                activation=spec.activation,
                image_size=spec.image_size,
            )
    return loaded
