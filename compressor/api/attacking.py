"""``attack``: the accuracy of a model under a suite of attacks."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from compressor.api.datasets import Data
from compressor.api.evaluation import TestImages, attack_images, load_test_images
from compressor.api.inputs import Inputs, allow_model, default_threat, model_source
from compressor.api.reviewing import plan_report, write_report
from compressor.api.targets import AttackTarget, open_attack_target
from compressor.core.errors import UsageError
from compressor.core.reporting import EventReporter, OnEvent, Reporter
from compressor.core.types import Threat
from compressor.evaluation.agreement import ReferenceAgreement, compare_with_reference
from compressor.evaluation.report import Report
from compressor.evaluation.suites import Suite, get_suite
from compressor.frozen import FrozenPrecision
from compressor.runs.run import Run
from compressor.system.files import AnyPath, as_path
from compressor.system.interruption import StopRequest
from compressor.training.teacher_file import TeacherRequest

REFERENCE_SUITE = "reference"


def attack(
    target: str | os.PathLike[str] | Run | nn.Module | AttackTarget,
    *,
    suite: str = "quick",
    eval_samples: int | None = None,
    eps: str | float | None = None,
    norm: Literal["Linf", "L2"] | None = None,
    batch_size: int | None = None,
    data: Data | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    image_size: int | None = None,
    model: str | nn.Module | None = None,
    normalization: str | None = None,
    activation: str | None = None,
    seed: int = 0,
    state: str | os.PathLike[str] | None = None,
    proposals: FrozenPrecision = "fp32",
    report: str | os.PathLike[str] | None = None,
    curve: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    on_progress: OnEvent | None = None,
) -> Report:
    """Attack a model on test images and report what came of each image.

    Args:
        target: a checkpoint, a run (its best checkpoint), a module in memory that takes images ``[B, C, H, W]`` in
            [0, 1], or an opened target. Of a module a copy is attacked.
        suite: the attacks; ``compress list suites`` shows them.
        eval_samples: how many test images, drawn by seed and class-balanced (default: all).
        eps: the perturbation's size, such as ``"8/255"`` or ``8 / 255`` (default: what the model was trained against,
            else 8/255).
        norm: ``Linf`` or ``L2`` (default: as for ``eps``, else Linf).
        batch_size: images at a time (default: 128; with AutoAttack on a CPU 32, or 64 for bf16 proposals).
        data: a dataset's name, a dataset, or test images with labels (default: what the model's file or the run
            records, else the CIFAR of its number of classes).
        data_dir: where downloaded datasets lie.
        download: whether an absent dataset is fetched.
        image_size: side of the images, in pixels.
        model: the architecture of a checkpoint whose keys do not tell, or a module of that architecture.
        normalization: of a foreign checkpoint (default: measured).
        activation: of a foreign checkpoint (default: measured).
        seed: names every random number.
        state: a folder where finished batches are kept; the same call goes on from it.
        proposals: ``fp32`` or ``bf16``: in which attacks look for images; the model decides in fp32 always.
        report: a folder to write for a reviewer: curves over eps, smallest perturbations, classes, a gallery.
        curve: radii of the report's curve, such as ``"0,2/255,8/255"``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        threads: of torch on the CPU (default: all that this process may use).
        on_progress: called with each ``Event``.

    Returns:
        The report: accuracies, 95 % intervals, alarms, and a bit for each image and attack.

    Raises:
        CompressError: the model or the data cannot be used, or an argument makes no sense.

    Example:
        >>> from compressor import attack
        >>> report = attack("teacher.safetensors", data="digits", eps=0.02, eval_samples=20)
        >>> report.samples, report.suite
        (20, 'quick@1')
        >>> 0 <= report.robust_accuracy <= report.clean_accuracy <= 1
        True
    """
    allow_model(model)
    reporter, stop = EventReporter(on_progress), StopRequest()
    if isinstance(target, Run) and data is None:
        data = target.dataset
    inputs = Inputs(data, as_path(data_dir), download, device, threads)
    get_suite(suite)
    where = inputs.device()
    if isinstance(target, AttackTarget):
        opened = target
    else:
        opened = open_attack_target(
            TeacherRequest(_source(target), model, normalization, activation), inputs, reporter,
            device=where, image_size=image_size,
        )  # fmt: skip
    job = AttackJob.open(opened, eval_samples, eps, norm, seed, where, reporter, stop, batch_size, proposals)
    plan = plan_report(as_path(report), curve, job.threat, job.images, reporter=reporter)
    found = job.run(suite, as_path(state), reporter, stop)
    if plan is not None:
        write_report(plan, found, opened, job.images, device=where, batch_size=batch_size, reporter=reporter, stop=stop)
    return found


@dataclass(frozen=True)
class AttackJob:
    """A target with its images and threat: what several suites are run on alike. For the fields see ``attack``."""

    target: AttackTarget
    images: TestImages
    threat: Threat
    seed: int
    device: torch.device
    batch_size: int | None
    proposals: FrozenPrecision

    @classmethod
    def open(
        cls,
        target: AttackTarget,
        samples: int | None,
        eps: str | float | None,
        norm: str | None,
        seed: int,
        device: torch.device,
        reporter: Reporter,
        stop: StopRequest,
        batch_size: int | None = None,
        proposals: FrozenPrecision = "fp32",
    ) -> AttackJob:
        """Load the test images, and settle the threat.

        Raises:
            UsageError: proposals in bf16 of a file whose gradients are computed in fp32.
        """
        if target.surrogate and proposals != "fp32":
            raise UsageError("the gradients of an ONNX file are computed in fp32.", "Leave --proposals out.")
        images = load_test_images(target.dataset, samples, seed, reporter=reporter, stop=stop)
        threat = default_threat(target.recorded, eps, norm)
        return cls(target, images, threat, seed, device, batch_size, proposals)

    def run(self, suite: str, state: Path | None, reporter: Reporter, stop: StopRequest) -> Report:
        """Attack with a suite; what is done is kept in ``state``."""
        return attack_images(
            self.target.model, self.target.digest, self.images, self.threat, suite, seed=self.seed,
            batch_size=self.batch_size, device=self.device, state=state, proposals=self.proposals,
            surrogate=self.target.surrogate, reporter=reporter, stop=stop,
        )  # fmt: skip

    def compare_with_reference(
        self, report: Report, column: str, state: Path | None, reporter: Reporter, stop: StopRequest
    ) -> tuple[Report, ReferenceAgreement]:
        """Run AutoAttack by its authors' own loops too, and count where the two disagree.

        The report's suite has AutoAttack in ``column``; the reference keeps a state of its own beside ``state``.
        """
        kept_in = state.with_name(f"{state.name}.reference") if state else None
        theirs = self.run(REFERENCE_SUITE, kept_in, reporter, stop)
        (reference,) = theirs.attacks.values()
        return theirs, compare_with_reference(report.attacks[column], reference)


def autoattack_column(suite: Suite) -> str:
    """The column that the reference is held against.

    Raises:
        UsageError: the suite has no AutoAttack.
    """
    for column in suite.columns:
        if column.attack == "autoattack":
            return column.name
    raise UsageError(
        f"--reference checks AutoAttack, and the suite {suite} has none.", "Use --suite standard or --suite paper."
    )


def _source(target: AnyPath | Run | nn.Module) -> Path | nn.Module:
    source = model_source(target)
    if isinstance(source, Path) and source.suffix == ".onnx":
        raise UsageError(
            f"{source} is an ONNX file, which the engine does not read.",
            "Open it first: attack(exporters.pipeline.open_onnx_target(path)).",
        )
    return source
