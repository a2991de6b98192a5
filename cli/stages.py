"""The stages that ``train``, ``distill`` and ``demo`` are made of; each can be entered again and does what is left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from cli.output import Output
from cli.recipes import resolve_recipe_file
from cli.tables import artifact_json, show_artifact, show_report, show_verdict
from compressor.checkpoint import LoadedCheckpoint, load_checkpoint, normalization_name
from compressor.contracts import Dataset
from compressor.datasets import open_dataset, take_balanced, watch_decoding
from compressor.devices import resolve_device, set_threads
from compressor.errors import CompressError, UsageError
from compressor.evaluation import Report, estimate_autoattack_seconds, evaluate
from compressor.files import sha256_file, write_json
from compressor.suites import get_suite
from compressor.training.interruption import StopRequest
from compressor.training.recipe import Recipe, read_recipe_file, resolve
from compressor.training.run_folder import RunFolder, default_run_path
from compressor.training.session import (
    TeacherRequest,
    TrainingRequest,
    TrainingResult,
    check_request,
    read_teacher,
    settle,
    train,
)
from compressor.types import DatasetSpec, Threat
from exporters.artifact import make_artifact
from exporters.claim import ClaimMismatchError, model_digest, read_claim
from exporters.evidence import evidence_path
from exporters.structure import load_untrusted
from exporters.verification import Policies, Verdict, verify

DEFAULT_EVAL_SAMPLES = 1000
EVALUATION_BATCH = 128
AUTOATTACK_BATCH = 32  # a batch is what a kill can lose, and one of AutoAttack's takes minutes on a CPU


@dataclass(frozen=True)
class Inputs:
    """Where a command computes, and what data it was given."""

    data: str | None = None
    data_dir: Path | None = None
    download: bool = False
    device_name: str = "auto"
    threads: int | None = None

    def device(self) -> torch.device:
        """The device asked for, with the threads set."""
        set_threads(self.threads)
        return resolve_device(self.device_name)

    def words(self) -> list[str]:
        """The options that the next command needs to find the same data."""
        words = ["--data", self.data] if self.data else []
        return words + (["--data-dir", str(self.data_dir)] if self.data_dir else [])

    def open(self, default: Callable[[], str], image_size: int, output: Output) -> Dataset:
        """The dataset asked for, or the default, which is worked out only where none was."""
        spec = DatasetSpec.parse(self.data or default())
        dataset = open_dataset(spec, data_dir=self.data_dir, download=self.download, image_size=image_size)
        output.note(f"data: {spec}, {len(dataset.class_names)} classes, {image_size} pixels")
        return dataset


@dataclass(frozen=True)
class Trained:
    """A run whose training is done."""

    recipe: Recipe
    run: RunFolder
    dataset: Dataset
    result: TrainingResult

    def to_json(self, report: Report) -> dict[str, Any]:
        """The fields that ``train`` and ``distill`` share."""
        return {
            "run": str(self.run.path),
            "checkpoint": str(self.run.best),
            "best": str(self.run.best),
            "last": str(self.run.last),
            "best_epoch": self.result.best_epoch,
            "metrics": str(self.run.metrics),
            "evaluation": report.to_json(),
        }


def default_data(loaded: LoadedCheckpoint) -> str:
    """The dataset that a checkpoint records, else the CIFAR of its class count."""
    recorded = loaded.metadata.get("dataset")
    return dataset_by_record(recorded.get("name") if isinstance(recorded, dict) else None, loaded.spec.classes)


def dataset_by_record(recorded: str | None, classes: int) -> str:
    """The dataset that a file names, else the CIFAR of its class count.

    Raises:
        UsageError: it can't be told; the hint is to name it.
    """
    if recorded == "imagefolder":
        raise UsageError(
            "the model was made with a picture folder, and a file does not record where that is.",
            "Name it with --data imagefolder:DIR.",
        )
    if recorded:
        return recorded
    if classes in (10, 100):
        return f"cifar{classes}"
    raise UsageError(f"there is no default data for {classes} classes.", "Name it with --data SPEC.")


def default_threat(recorded: Any, eps: str | None, norm: str | None) -> Threat:
    """The threat that the options name, else the one that a file records, else L-infinity 8/255."""
    recorded, fallback = recorded if isinstance(recorded, dict) else {}, Threat()
    return Threat(
        cast(Any, norm or recorded.get("norm") or fallback.norm), eps or str(recorded.get("eps") or fallback.eps)
    )


def open_checkpoint(
    path: Path,
    inputs: Inputs,
    output: Output,
    *,
    model: str | None = None,
    normalization: str | None = None,
    activation: str | None = None,
    image_size: int | None = None,
) -> tuple[LoadedCheckpoint, Dataset]:
    """A checkpoint with nothing left open, and the dataset that goes with it."""
    loaded = read_teacher(TeacherRequest(path, model, normalization, activation), image_size=image_size)
    dataset = inputs.open(lambda: default_data(loaded), loaded.spec.image_size, output)
    return settle(loaded, dataset, reporter=output), dataset


def train_run(
    recipe: Recipe,
    dataset: Dataset,
    inputs: Inputs,
    teacher: LoadedCheckpoint | None,
    *,
    run: Path | None,
    resume: bool,
    output: Output,
    stop: StopRequest,
) -> Trained:
    """Train, or go on training, in a run folder.

    Args:
        recipe: what to do.
        dataset: what to train on.
        inputs: where to compute.
        teacher: settled, or None.
        run: the folder, or None for the default one.
        resume: whether the folder may exist.
        output: told of progress.
        stop: asked after every step.
    """
    folder = run_folder(recipe, dataset, run)
    request = TrainingRequest(recipe, dataset, folder, inputs.device(), resume)
    check_request(request, has_teacher=teacher is not None)
    with _decoding_shown(output, stop), folder.lock():
        result = train(request, teacher, reporter=output, stop=stop)
    return Trained(recipe, folder, dataset, result)


def run_folder(recipe: Recipe, dataset: Dataset, run: Path | None) -> RunFolder:
    """The folder asked for, or the default one."""
    return RunFolder(run or default_run_path(recipe.method, recipe.model, dataset.name, recipe.seed))


def check_before_training(dataset: Dataset, suite: str, folder: RunFolder, *, resume: bool) -> None:
    """Raise now what would otherwise stop the run after hours of training."""
    get_suite(suite)
    folder.refuse_unless_enterable(resume=resume)
    for split in ("train", "test"):
        if not dataset.has(split):
            dataset.load(split)  # says what is missing, and the way out


def evaluate_run(
    trained: Trained,
    suite: str,
    samples: int | None,
    *,
    device: torch.device,
    output: Output,
    stop: StopRequest,
) -> Report:
    """Attack a run's best checkpoint on test images, write ``evaluation.json`` and print the table."""
    loaded = load_checkpoint(trained.run.best)
    report = attack_model(
        loaded.classifier.to(device),
        loaded.sha256,
        trained.dataset,
        trained.recipe.threat,
        suite,
        samples=samples or DEFAULT_EVAL_SAMPLES,
        seed=trained.recipe.seed,
        device=device,
        state=trained.run.evaluation_state,
        output=output,
        stop=stop,
    )
    write_json(trained.run.evaluation, report.to_json())
    show_report(report, f"{trained.recipe.model}, best checkpoint (epoch {trained.result.best_epoch})", output)
    return report


def attack_model(
    model: nn.Module,
    digest: str,
    dataset: Dataset,
    threat: Threat,
    suite_name: str,
    *,
    samples: int | None,
    seed: int,
    batch_size: int | None = None,
    device: torch.device,
    state: Path | None,
    output: Output,
    stop: StopRequest,
) -> Report:
    """Run a suite on (class-balanced, seeded) test images; says before it starts what AutoAttack will take."""
    suite = get_suite(suite_name)
    batch_size = batch_size or (AUTOATTACK_BATCH if suite.uses("autoattack") else EVALUATION_BATCH)
    with _decoding_shown(output, stop):
        test = dataset.load("test")
    split = take_balanced(test, samples, seed) if samples else test
    output.phase(f"Attacking on {len(split):,} test images: {suite}, {threat}")
    if suite.uses("autoattack"):
        seconds = estimate_autoattack_seconds(model, split.images, len(split), batch_size=batch_size, device=device)
        output.note(
            f"AutoAttack takes about {seconds / len(split):.0f} s for each image that stands, "
            f"so at most {seconds / 3600:.1f} h for these; --eval-samples N takes fewer"
        )

    def on_progress(name: str, done: int, total: int) -> None:
        output.advance(done, total, name)
        stop.raise_if_set()

    return evaluate(
        model,
        split.images,
        split.labels,
        threat,
        suite,
        seed=seed,
        batch_size=batch_size,
        device=device,
        state=state,
        model_digest=digest,
        on_progress=on_progress,
    )


def export_and_verify(
    loaded: LoadedCheckpoint,
    dataset: Dataset,
    threat: Threat,
    path: Path,
    *,
    samples: int,
    seed: int,
    suite: str | None = None,
    evidence: Path | None = None,
    threads: int | None = None,
    force: bool = False,
    output: Output,
    stop: StopRequest,
) -> tuple[dict[str, Any], Verdict]:
    """Write the artifact, unless the very same one is there (or ``force``), and verify it as a stranger would.

    Returns:
        The export's JSON fields, and the verdict.
    """

    def on_progress(name: str, done: int, total: int) -> None:
        output.advance(done, total, name)
        stop.raise_if_set()

    if not force and is_exported(path, evidence, loaded, threat, samples):
        output.note(f"exported already: {path}")
    else:
        output.phase(f"Exporting {loaded.spec.name} and attacking the file twice: {threat}")
        with _decoding_shown(output, stop):
            dataset.load("test")
        artifact = make_artifact(
            loaded, dataset, threat, path,
            samples=samples, seed=seed, suite=suite, evidence=evidence, threads=threads, on_progress=on_progress,
        )  # fmt: skip
        show_artifact(artifact, output)
    output.phase(f"Verifying {path} with fresh attacks")
    verdict = verify(path, evidence=evidence, threads=threads, policies=Policies(), on_progress=on_progress)
    show_verdict(verdict, output)
    return artifact_json(path, verdict), verdict


def is_exported(path: Path, evidence: Path | None, loaded: LoadedCheckpoint, threat: Threat, samples: int) -> bool:
    """Whether ``path`` holds this checkpoint's export for this threat, undamaged, with its evidence beside it."""
    beside = evidence or evidence_path(path)
    if not path.is_file() or not beside.is_file():
        return False
    try:
        model = load_untrusted(path).model
        claim = read_claim(model)
    except (CompressError, ClaimMismatchError):
        return False  # a damaged file is made anew
    return (
        claim is not None
        and claim.student == loaded.sha256
        and claim.threat == threat
        and claim.samples in (samples, claim.dataset["total"])
        and claim.model == model_digest(model)
        and claim.evidence == sha256_file(beside)
    )


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


def distill_run(request: Distillation, *, output: Output, stop: StopRequest) -> Distilled:
    """Teacher, training, attacks, export, verification."""
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
        recipe, dataset, inputs, teacher, run=folder.path, resume=request.resume, output=output, stop=stop
    )
    report = evaluate_run(trained, request.suite, request.eval_samples, device=device, output=output, stop=stop)
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


def make_recipe(method: str, model: str, file: Path | None, flags: Mapping[str, Any], dataset_name: str) -> Recipe:
    """The resolved recipe; digits are never flipped unless the recipe asks for it."""
    implied = {"augmentation": "crop"} if dataset_name == "digits" else {}
    return resolve(method, model, file, flags, implied=implied)


def _decoding_shown(output: Output, stop: StopRequest) -> AbstractContextManager[None]:
    def on_progress(done: int, total: int) -> None:
        output.advance(done, total, "decoding pictures")
        stop.raise_if_set()

    return watch_decoding(on_progress)
