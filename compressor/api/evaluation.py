"""A model attacked on test images, and what is kept of the evaluation of a run's checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from compressor.api.inputs import decoding_shown, progress_shown
from compressor.checkpoint import LoadedCheckpoint, load_checkpoint
from compressor.core.contracts import Dataset, Ensemble, Split
from compressor.core.errors import UnreadableRunError, UsageError
from compressor.core.reporting import Reporter
from compressor.core.types import Threat
from compressor.data.datasets import digest, take_balanced
from compressor.evaluation.evaluate import Report, estimate_autoattack_seconds, evaluate
from compressor.evaluation.record import CheckpointName, EvaluationRecord, MeasuredCheckpoint, read_evaluation
from compressor.evaluation.store import discard_state
from compressor.evaluation.suites import get_suite
from compressor.frozen import FrozenPrecision
from compressor.models.classifier import check_classes, count_parameters
from compressor.models.costs import forward_operations
from compressor.runs.run import Run
from compressor.runs.run_folder import RunFolder
from compressor.system import launch
from compressor.system.interruption import StopRequest
from compressor.system.process_group import ProcessGroup

CheckpointChoice = Literal["best", "both"]

# Not the run's own seed: runs that differ in it are attacked on the same images with the same noise.
EVALUATION_SEED = 0
EVALUATION_BATCH = 128
DEFAULT_EVAL_SAMPLES = 1000
# A batch is what a kill can lose, and AutoAttack's last for long. A CPU computes no more images at once anyway.
AUTOATTACK_BATCH_ON_CPU: dict[FrozenPrecision, int] = {"fp32": 32, "bf16": 64}


@dataclass(frozen=True)
class TestImages:
    """Test images to attack, and what names them.

    Attributes:
        split: the images, class-balanced and drawn by seed where they are not all there are.
        dataset: the name of the data.
        class_names: in the order of the labels.
    """

    split: Split
    dataset: str
    class_names: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """The digest of these images, with their labels and the class names."""
        return digest(self.split, self.class_names)


def default_samples(suite_name: str) -> int | None:
    """How many test images a finished run is attacked on unless told otherwise; ``None``: all of them.

    A suite that is AutoAttack alone measures the figure to publish, which is that of all images.
    """
    is_autoattack_alone = all(isinstance(attack, Ensemble) for _, attack in get_suite(suite_name).attacks)
    return None if is_autoattack_alone else DEFAULT_EVAL_SAMPLES


def parse_checkpoint_choice(text: str) -> CheckpointChoice:
    """What ``--evaluate`` means.

    Raises:
        UsageError: neither ``best`` nor ``both``.
    """
    if text not in get_args(CheckpointChoice):
        raise UsageError(f"--evaluate is {text!r}.", "Use best or both.")
    return cast(CheckpointChoice, text)


def checkpoints_of(choice: CheckpointChoice) -> tuple[CheckpointName, ...]:
    """The best checkpoint, or the best and the last, in this order."""
    return ("best",) if choice == "best" else ("best", "last")


def load_test_images(
    dataset: Dataset, samples: int | None, seed: int, *, reporter: Reporter, stop: StopRequest
) -> TestImages:
    """``samples`` test images, class-balanced and drawn by seed; all of them for ``None``."""
    with decoding_shown(reporter, stop):
        test = dataset.load("test")
    split = take_balanced(test, samples, seed) if samples else test
    return TestImages(split, dataset.name, tuple(dataset.class_names))


def known_evaluations(run: RunFolder) -> list[EvaluationRecord]:
    """What the run's folder holds already; what can't be used is left out."""
    known = []
    for which in checkpoints_of("both"):
        try:
            known.append(read_evaluation(run.evaluation_of(which)))
        except UnreadableRunError:
            continue
    return known


def evaluate_checkpoint(
    run: RunFolder,
    which: CheckpointName,
    images: TestImages,
    threat: Threat,
    suite: str,
    *,
    known: Sequence[EvaluationRecord],
    device: torch.device,
    reporter: Reporter,
    stop: StopRequest,
) -> EvaluationRecord:
    """Attack one of a run's checkpoints and write what is found; what is known of the same weights is taken over.

    ``known`` are earlier evaluations: where the best checkpoint is the last one, it is attacked once. A stop keeps what
    is done, and the same call goes on.
    """
    loaded = load_checkpoint(run.checkpoint_of(which))
    measured = _describe(loaded, which, run.checkpoint_of(which))
    check_classes(loaded.spec, len(images.class_names), images.dataset)
    report = _known_report(known, loaded.sha256, images, threat, suite)
    state = run.evaluation_state_of(which, str(get_suite(suite)))
    if report is not None:
        reporter.note(f"{run.checkpoint_of(which)} is evaluated already: {report.suite}, {report.samples:,} images")
    else:
        report = attack_images(
            loaded.classifier.to(device), loaded.sha256, images, threat, suite,
            seed=EVALUATION_SEED, device=device, state=state, replace_state=True, reporter=reporter, stop=stop,
        )  # fmt: skip
    record = EvaluationRecord(measured, images.dataset, images.sha256, report)
    if launch.rank() == 0:
        record.write(run.evaluation_of(which))
        discard_state(state)  # it holds images, and all else is in the record
    return record


def attack_images(
    model: nn.Module,
    digest: str | None,
    images: TestImages,
    threat: Threat,
    suite_name: str,
    *,
    seed: int,
    batch_size: int | None = None,
    device: torch.device,
    state: Path | None,
    replace_state: bool = False,
    proposals: FrozenPrecision = "fp32",
    surrogate: Callable[[Tensor], nn.Module] | None = None,
    reporter: Reporter,
    stop: StopRequest,
) -> Report:
    """Run a suite on test images; says before it starts what AutoAttack will take.

    The processes that a launcher started share the images out among them, and all of them get the report.
    """
    suite, split = get_suite(suite_name), images.split
    has_autoattack = any(isinstance(attack, Ensemble) for _, attack in suite.attacks)
    is_slow = has_autoattack and device.type == "cpu"
    batch_size = batch_size or (AUTOATTACK_BATCH_ON_CPU[proposals] if is_slow else EVALUATION_BATCH)
    is_reference = any(isinstance(attack, Ensemble) and attack.is_reference for _, attack in suite.attacks)
    # Convolutions are fastest channels-last. A reference has the layout that its authors' users have, also where the
    # model was attacked by another suite before.
    model = model.to(memory_format=torch.contiguous_format if is_reference else torch.channels_last)
    reporter.phase(f"Attacking on {len(split):,} test images: {suite}, {threat}")
    if has_autoattack:
        seconds = estimate_autoattack_seconds(model, split.images, len(split), batch_size=batch_size, device=device)
        reporter.note(
            f"AutoAttack takes about {seconds / len(split):.0f} s for each image that is robust so far, "
            f"so at most {seconds / launch.world_size() / 3600:.1f} h for these; --samples N takes fewer"
        )

    return evaluate(
        model,
        split.images,
        split.labels,
        threat,
        suite,
        seed=seed,
        batch_size=batch_size,
        device=device,
        proposals=proposals,
        surrogate=surrogate,
        state=state,
        replace_state=replace_state,
        model_digest=digest,
        process_group=ProcessGroup.enter(device),
        on_progress=progress_shown(reporter, stop),
    )


def evaluate_run(
    run: Run,
    suite: str,
    samples: int | None,
    *,
    choice: CheckpointChoice = "best",
    device: torch.device,
    reporter: Reporter,
    stop: StopRequest,
    on_record: Callable[[EvaluationRecord], None] = lambda record: None,
) -> Report:
    """Attack a run's best checkpoint on test images, or its best and last, and write what is found into its folder.

    Without ``samples``, the suite's own number is taken. ``on_record`` is called with each checkpoint's evaluation as
    soon as it is there.

    Returns:
        The best checkpoint's report.
    """
    samples = samples or default_samples(suite)
    images = load_test_images(run.dataset, samples, EVALUATION_SEED, reporter=reporter, stop=stop)
    known, reports = known_evaluations(run.folder), {}
    for which in checkpoints_of(choice):
        record = evaluate_checkpoint(
            run.folder, which, images, run.recipe.threat, suite,
            known=known, device=device, reporter=reporter, stop=stop,
        )  # fmt: skip
        known.append(record)
        reports[which] = record.report
        on_record(record)
    return reports["best"]


def _describe(loaded: LoadedCheckpoint, which: CheckpointName, path: Path) -> MeasuredCheckpoint:
    selection, epoch = loaded.metadata.get("selection"), loaded.metadata.get("epoch")
    return MeasuredCheckpoint(
        which=which,
        sha256=loaded.sha256,
        bytes=path.stat().st_size,
        epoch=epoch if isinstance(epoch, int) else None,
        selection=selection if isinstance(selection, dict) else {},
        model=loaded.spec.name,
        parameters=count_parameters(loaded.classifier),
        macs=_count_macs(loaded),
    )


def _count_macs(loaded: LoadedCheckpoint) -> int | None:
    try:
        return forward_operations(loaded.classifier, loaded.spec.image_size) // 2
    except (NotImplementedError, RuntimeError):  # a user's own network may look at values, which shapes don't have
        return None


def _known_report(
    known: Sequence[EvaluationRecord], checkpoint: str, images: TestImages, threat: Threat, suite: str
) -> Report | None:
    """The report among the known ones that attacking this checkpoint would give again."""
    name, test = str(get_suite(suite)), images.sha256
    for record in known:
        report = record.report
        asked = (checkpoint, test, name, threat, EVALUATION_SEED, "alone")
        if asked == (
            record.measured.sha256, record.test_sha256, report.suite, report.threat, report.seed, report.mode,
        ):  # fmt: skip
            return report
    return None
