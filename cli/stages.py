"""The stages of a run: train, attack, export, verify; each can be entered again and does what is left."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cli.inputs import Inputs, decoding_shown
from cli.output import Output
from cli.tables import artifact_json, show_artifact, show_report, show_verdict
from compressor import launch
from compressor.checkpoint import LoadedCheckpoint, load_checkpoint
from compressor.contracts import Dataset
from compressor.datasets import take_balanced
from compressor.errors import CompressError
from compressor.evaluation import Report, estimate_autoattack_seconds, evaluate
from compressor.files import sha256_file, write_json
from compressor.sizes import parse_size
from compressor.suites import get_suite
from compressor.team import Team
from compressor.training.interruption import StopRequest
from compressor.training.recipe import Recipe, resolve
from compressor.training.run_folder import RunFolder, default_run_path
from compressor.training.session import (
    DEFAULT_LABEL_CACHE_LIMIT,
    TrainingRequest,
    TrainingResult,
    check_request,
    train,
)
from compressor.types import Threat
from exporters.artifact import make_artifact
from exporters.claim import ClaimMismatchError, model_digest, read_claim
from exporters.evidence import evidence_path
from exporters.structure import load_untrusted
from exporters.verification import Policies, Verdict, verify

DEFAULT_EVAL_SAMPLES = 1000
EVALUATION_BATCH = 128
AUTOATTACK_BATCH = 32  # a batch is what a kill can lose, and one of AutoAttack's takes minutes on a CPU


@dataclass(frozen=True)
class Extras:
    """What a training is told beside its recipe: it changes no result.

    Attributes:
        label_cache_limit: bytes that a full label cache may take; 0 keeps none.
        profile: whether to write where the time went.
    """

    label_cache_limit: int = DEFAULT_LABEL_CACHE_LIMIT
    profile: bool = False

    @classmethod
    def parse(cls, label_cache_limit: str, *, profile: bool) -> Extras:
        """From the options' text.

        Raises:
            UsageError: the limit is no size.
        """
        return cls(parse_size(label_cache_limit), profile)


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


def make_recipe(method: str, model: str, file: Path | None, flags: Mapping[str, Any], dataset_name: str) -> Recipe:
    """The resolved recipe; digits are never flipped unless the recipe asks for it."""
    implied = {"augmentation": "crop"} if dataset_name == "digits" else {}
    return resolve(method, model, file, flags, implied=implied)


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


def train_run(
    recipe: Recipe,
    dataset: Dataset,
    inputs: Inputs,
    teacher: LoadedCheckpoint | None,
    *,
    run: Path | None,
    resume: bool,
    extras: Extras,
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
        extras: see there.
        output: told of progress.
        stop: asked after every step.
    """
    folder = run_folder(recipe, dataset, run)
    request = TrainingRequest(
        recipe, dataset, folder, inputs.device(), resume, extras.label_cache_limit, extras.profile
    )
    check_request(request, has_teacher=teacher is not None)
    # The processes of one launch share the folder; the first holds it for all.
    with decoding_shown(output, stop), folder.lock() if launch.rank() == 0 else nullcontext():
        result = train(request, teacher, reporter=output, stop=stop)
    return Trained(recipe, folder, dataset, result)


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
    if launch.rank() == 0:
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
    model = model.to(memory_format=torch.channels_last)  # what convolutions are fastest in
    with decoding_shown(output, stop):
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
        team=Team.current(device),
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
        with decoding_shown(output, stop):
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
