"""Attacking the checkpoints of finished runs, as far as it is not done yet, all of them alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compressor.api.evaluation import (
    EVALUATION_SEED,
    CheckpointChoice,
    TestImages,
    checkpoints_of,
    default_samples,
    evaluate_checkpoint,
    known_evaluations,
    load_test_images,
    parse_checkpoint_choice,
)
from compressor.api.inputs import Inputs, dataset_by_record
from compressor.comparison import FinishedRun
from compressor.core.contracts import Dataset
from compressor.core.reporting import Reporter
from compressor.core.types import Threat
from compressor.evaluation.suites import get_suite
from compressor.system.interruption import StopRequest


@dataclass(frozen=True)
class MeasurementRequest:
    """What is asked for; ``None`` takes what the first run was measured with."""

    wanted: CheckpointChoice
    suite: str | None = None
    samples: int | None = None
    eps: str | None = None

    @classmethod
    def parse(cls, wanted: str, suite: str | None, samples: int | None, eps: str | None) -> MeasurementRequest:
        """From the options' text.

        Raises:
            UsageError: no such choice, suite or radius.
        """
        if suite is not None:
            get_suite(suite)
        if eps is not None:
            Threat(eps=eps)
        return cls(parse_checkpoint_choice(wanted), suite, samples, eps)


def measure_runs(
    runs: Sequence[FinishedRun], asked: MeasurementRequest, inputs: Inputs, *, reporter: Reporter, stop: StopRequest
) -> None:
    """Attack every run's best checkpoint, then every last one, and write what is found into the run folders.

    Started again, it goes on where it was; what is measured already is taken over. Without data in ``inputs``, each run
    is attacked on its own.

    Raises:
        CompressError: a run's data or checkpoint cannot be used. Interrupted: a signal came.
    """
    device = inputs.device()
    before = next((record for run in runs[:1] for record in known_evaluations(run.folder)), None)
    suite = asked.suite or (before.report.suite if before else "default")
    samples = asked.samples or (before.report.samples if before else default_samples(suite))
    images: dict[tuple[str, int], TestImages] = {}
    for which in checkpoints_of(asked.wanted):
        for run in runs:
            key = str(run.inputs.get("dataset", "")), int(run.recipe["image_size"])
            if key not in images:
                dataset = _open(run, inputs, reporter)
                images[key] = load_test_images(dataset, samples, EVALUATION_SEED, reporter=reporter, stop=stop)
            reporter.phase(f"{run.name}: {which} checkpoint")
            with run.folder.lock():
                evaluate_checkpoint(
                    run.folder, which, images[key],
                    Threat(run.recipe["norm"], asked.eps) if asked.eps else run.threat, suite,
                    known=known_evaluations(run.folder), device=device, reporter=reporter, stop=stop,
                )  # fmt: skip


def _open(run: FinishedRun, inputs: Inputs, reporter: Reporter) -> Dataset:
    from compressor.checkpoint import load_checkpoint

    def recorded() -> str:
        classes = load_checkpoint(run.folder.best).spec.classes
        return dataset_by_record(run.inputs.get("dataset"), classes)

    return inputs.open(recorded, int(run.recipe["image_size"]), reporter)
