"""The folder for a reviewer: its cost is told before the attack, and the folder is written after it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from compressor.api.evaluation import EVALUATION_BATCH, TestImages
from compressor.api.inputs import progress_shown
from compressor.api.targets import AttackTarget
from compressor.attack_report import (
    LARGEST_SAMPLE,
    NORMS,
    AttackedModel,
    default_radii,
    draw_sample,
    forwards_for,
    measure_findings,
    parse_radii,
    refuse_foreign_report,
    require_matplotlib,
    write_folder,
)
from compressor.core.errors import UsageError
from compressor.core.reporting import Reporter
from compressor.core.types import Norm, Threat
from compressor.evaluation.report import Report
from compressor.evaluation.suites import get_suite
from compressor.system import launch
from compressor.system.interruption import StopRequest


@dataclass(frozen=True)
class ReportPlan:
    """A report that was asked for and can be written.

    Attributes:
        folder: where to; new, or an earlier report's.
        radii: of each norm's curve.
    """

    folder: Path
    radii: Mapping[Norm, tuple[str, ...]]


def plan_report(
    folder: Path | None, curve: str | None, threat: Threat, images: TestImages, *, reporter: Reporter
) -> ReportPlan | None:
    """Refuse now what would fail after hours of attacks, and say what the report will take beside them.

    Args:
        folder: of ``--report``; ``None`` where no report is wanted.
        curve: of ``--curve``.
        threat: of the evaluation; ``--curve`` is in its norm.
        images: that will be attacked.
        reporter: told of the costs.

    Raises:
        UsageError: the folder is something else, a radius is none, or ``--curve`` was given without ``--report``.
        MissingPackageError: matplotlib is not installed.
    """
    if folder is None:
        if curve is not None:
            raise UsageError("--curve chooses the radii of a report, and none is written.", "Add --report DIR.")
        return None
    require_matplotlib()
    refuse_foreign_report(folder)
    values = int(images.split.images[0].size)
    radii = {norm: default_radii(threat, norm, values) for norm in NORMS}
    if curve is not None:
        radii[threat.norm] = parse_radii(curve, threat.norm)
    samples = min(LARGEST_SAMPLE, len(images.split))
    forwards = forwards_for(samples, len(images.class_names), radii)
    reporter.note(
        f"the report's curves, norms and targets take at most {forwards:,} forward passes of an image more (a backward "
        f"pass counts as two), on {samples:,} images"
    )
    return ReportPlan(folder, radii)


def write_report(
    plan: ReportPlan,
    report: Report,
    opened: AttackTarget,
    images: TestImages,
    *,
    device: torch.device,
    batch_size: int | None = None,
    reporter: Reporter,
    stop: StopRequest,
) -> None:
    """Measure what the evaluation has not, and write the folder. Of several processes the first does it."""
    if launch.rank() != 0:
        return
    reporter.phase(f"Measuring what the report shows, on {min(LARGEST_SAMPLE, len(images.split)):,} images")
    split, names = images.split, images.class_names
    subject = draw_sample(
        opened.model,
        split.images,
        split.labels,
        classes=len(names),
        seed=report.seed,
        batch_size=batch_size or EVALUATION_BATCH,
        device=device,
        surrogate=opened.surrogate,
        on_progress=progress_shown(reporter, stop),
    )
    channels, height, width = split.images.shape[1:]
    about = AttackedModel(opened.name, opened.sha256, images.dataset, images.sha256, names, (channels, height, width))
    findings = measure_findings(subject, about, report, get_suite(report.suite), split.images, plan.radii)
    write_folder(plan.folder, findings)
    if findings.missed:
        reporter.warn(
            f"{len(findings.missed)} image(s) are robust under {report.suite} and broken by the report's own attacks: "
            "the true accuracy is lower, and a stronger suite would find them."
        )
