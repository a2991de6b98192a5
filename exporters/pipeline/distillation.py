"""One run the whole way: teacher, training, attacks, export, verification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compressor.api.evaluation import CheckpointChoice, evaluate_run
from compressor.api.planning import (
    OpenedInputs,
    TrainingRequest,
    open_inputs,
    plan_distillation,
    settle_teacher,
    train_run,
)
from compressor.checkpoint import LoadedCheckpoint, load_checkpoint
from compressor.core.reporting import Reporter
from compressor.evaluation.report import Report
from compressor.evaluation.suites import get_suite
from compressor.runs.run import Run
from compressor.system import launch
from compressor.system.devices import set_threads
from compressor.training.configuration import RunConfig
from exporters.api.exporting import ExportedFile, Steps, export_and_verify
from exporters.artifact.artifact import Exporter
from exporters.artifact.sealing import ExportSettings
from exporters.verification.verdict import Verdict


@dataclass(frozen=True, kw_only=True)
class AfterTraining:
    """What is done with a trained student.

    Attributes:
        suite: the attacks.
        eval_samples: how many test images are attacked; None for the suite's own number.
        evaluate: the best checkpoint, or both.
        evidence_samples: test images that go into the evidence.
    """

    suite: str = "default"
    eval_samples: int | None = None
    evaluate: CheckpointChoice = "best"
    evidence_samples: int = 256


@dataclass(frozen=True)
class Distilled:
    """What became of a run: its checkpoints, the best one's report, and the exported file with its verdict."""

    run: Run
    report: Report
    exported: ExportedFile

    @property
    def verdict(self) -> Verdict:
        """What the verification of the exported file found."""
        return self.exported.verdict

    def to_json(self) -> dict[str, Any]:
        """The fields of ``distill``."""
        return run_json(self.run, self.report) | {"onnx": str(self.exported.path), "verdict": self.verdict.answer}


def run_json(run: Run, report: Report) -> dict[str, Any]:
    """The fields that ``train`` and ``distill`` share."""
    last = run.folder.last_evaluation
    return {
        "run": str(run.path),
        "checkpoint": str(run.best),
        "best": str(run.best),
        "last": str(run.last),
        "best_epoch": run.best_epoch,
        "metrics": str(run.folder.metrics),
        "evaluation": report.to_json(),
        "evaluations": {"best": str(run.folder.evaluation), "last": str(last) if last.is_file() else None},
    }


def distill_and_verify(request: TrainingRequest, after: AfterTraining, steps: Steps) -> Distilled | None:
    """Go the whole way with one run.

    Under a launcher the processes train and attack together; the first exports and verifies, and the others get None.

    Args:
        request: the teacher, the data, the recipe and the run folder.
        after: what is done with the student.
        steps: what is told, asked and done along the way.

    Raises:
        CompressError: the teacher, the data or the settings cannot be used. Interrupted: a signal came.
    """
    opened = open_inputs(request, steps.reporter)
    config = plan_whole_way(request, after, opened, steps.reporter)
    teacher = settle_teacher(request, opened, [config], steps.reporter)
    return carry_out(config, teacher, request.inputs.threads, after, steps)


def plan_whole_way(
    request: TrainingRequest, after: AfterTraining, opened: OpenedInputs, reporter: Reporter
) -> RunConfig:
    """Plan a run that is attacked and exported too."""
    get_suite(after.suite)
    return plan_distillation(request, opened, reporter, splits=("train", "test"))


def carry_out(
    config: RunConfig, teacher: LoadedCheckpoint | None, threads: int | None, after: AfterTraining, steps: Steps
) -> Distilled | None:
    """Train, attack, export and verify; each stage can be entered again and does what is left.

    Args:
        config: the run.
        teacher: settled; None where the method asks none.
        threads: of onnxruntime; None for all that this process may use.
        after: what is done with the student.
        steps: what is told, asked and done along the way.

    Returns:
        What became of it; None in all processes but the first.
    """
    run = train_run(config, teacher, reporter=steps.reporter, stop=steps.stop)
    report = evaluate_run(
        run, after.suite, after.eval_samples, choice=after.evaluate, device=config.device,
        reporter=steps.reporter, stop=steps.stop, on_record=lambda record: steps.on_record(run, record),
    )  # fmt: skip
    if launch.rank() != 0:
        return None
    settings = ExportSettings(samples=after.evidence_samples, seed=run.recipe.seed, threads=set_threads(threads))
    exporter = Exporter(load_checkpoint(run.best), run.dataset, run.recipe.threat, settings)
    return Distilled(run, report, export_and_verify(exporter, "fp32", run.folder.onnx, steps))
