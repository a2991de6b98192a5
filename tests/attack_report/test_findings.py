"""What the report's own attacks found that the evaluation did not."""

from __future__ import annotations

import numpy as np
import pytest

from compressor.attack_report.curve import Curve, CurvePoint
from compressor.attack_report.folder import FILES
from compressor.attack_report.norms import MinimalNorms
from compressor.attack_report.page import page
from compressor.core.types import Norm, Threat

from .conftest import make_findings, make_report, robust_so_far

FAR = MinimalNorms("Linf", np.array([1.0, 1.0, 1.0]))


def curves(norm: Norm, eps: str, n: int) -> tuple[Curve, ...]:
    return (Curve(norm, (CurvePoint("0", robust_so_far(0)), CurvePoint(eps, robust_so_far(n)))),)


# The sample is images 0, 2 and 5, of which the evaluation left 5 alone standing, at Linf 8/255.
@pytest.mark.parametrize(
    ("norm", "eps", "n", "missed"),
    [
        ("Linf", "8/255", 1, ()),
        ("Linf", "8/255", 0, (5,)),
        ("Linf", "2/255", 0, (5,)),  # a smaller ball lies inside
        ("Linf", "9/255", 0, ()),
        ("L2", "8/255", 0, ()),
    ],
)
def test_an_image_that_the_curve_breaks_in_the_same_ball_was_missed(
    norm: Norm, eps: str, n: int, missed: tuple[int, ...]
) -> None:
    findings = make_findings(curves=curves(norm, eps, n), norms=(FAR,))
    assert findings.missed == missed
    assert ("true accuracy is lower.**" in page(findings, FILES)) == bool(missed)


@pytest.mark.parametrize(
    ("distance", "norm", "missed"),
    [(0.9 * 8 / 255, "Linf", (5,)), (8 / 255, "Linf", ()), (np.inf, "Linf", ()), (0.001, "L2", ())],
)
def test_an_image_with_an_error_nearer_than_the_radius_was_missed(
    distance: float, norm: Norm, missed: tuple[int, ...]
) -> None:
    near = MinimalNorms(norm, np.array([0.0, 0.0, distance]))
    assert make_findings(curves=(), norms=(near,)).missed == missed


def test_nothing_is_missed_where_nothing_stands() -> None:
    report = make_report(threat=Threat("Linf", "8/255"), clean=np.zeros(6, dtype=bool))
    assert make_findings(report=report, curves=curves("Linf", "8/255", 0)).missed == ()
