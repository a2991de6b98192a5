"""What a report measures besides the evaluation: the curves, the smallest perturbations, the targets, the gallery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from compressor.attack_report import curve, norms, targeted
from compressor.attack_report.findings import AttackedModel, ReportFindings
from compressor.attack_report.gallery import choose_examples, make_examples
from compressor.attack_report.radii import NORMS
from compressor.attack_report.subject import AttackedSample
from compressor.core.types import Norm
from compressor.evaluation.report import Report
from compressor.evaluation.suites import Suite
from compressor.system.devices import full_float32

# A gradient is a forward pass and a backward pass, which takes about as long as two.
_GRADIENT = 3


def forwards_for(samples: int, classes: int, radii: Mapping[Norm, Sequence[str]]) -> int:
    """How many forward passes of one image ``measure_findings`` takes at most, a backward pass counted as two.

    Args:
        samples: images in the sample.
        classes: K.
        radii: of the curves.
    """
    balls = sum(radius != "0" for chosen in radii.values() for radius in chosen)
    attempts = min(targeted.LARGEST_ATTEMPTS, samples * (classes - 1))
    closest = len(NORMS) * norms.FAB_STEPS * min(norms.FAB_TARGETS, classes - 1)
    return _GRADIENT * (samples * (balls * curve.CURVE_STEPS + closest) + attempts * targeted.TARGETED_STEPS)


@full_float32()
def measure_findings(
    subject: AttackedSample,
    about: AttackedModel,
    report: Report,
    suite: Suite,
    images: NDArray[np.uint8],
    radii: Mapping[Norm, Sequence[str]],
) -> ReportFindings:
    """Measure all that a report shows, in full float32 like the evaluation.

    Args:
        subject: the model and the sample.
        about: what they are.
        report: the evaluation, of all images.
        suite: that the evaluation ran.
        images: that were evaluated, uint8 ``[N, C, H, W]``.
        radii: of each norm's curve.
    """
    chosen = choose_examples(report)
    return ReportFindings(
        about,
        report,
        tuple(int(position) for position in subject.positions),
        tuple(subject.y.tolist()),
        tuple(curve.accuracy_curve(subject, norm, chosen_radii) for norm, chosen_radii in radii.items()),
        tuple(norms.minimal_norms(subject, norm) for norm in NORMS),
        targeted.targeted_successes(subject, report.threat),
        make_examples(subject, images, report, dict(suite.attacks), chosen),
        len(chosen),
    )
