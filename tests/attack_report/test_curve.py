"""Accuracy against the radius, held to a linear model whose curve has a formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compressor.attack_report import draw_sample
from compressor.attack_report.curve import CurvePoint, accuracy_curve
from compressor.core.types import Norm
from compressor.numerics.statistics import wilson_interval

from .conftest import Linear, N


@pytest.mark.parametrize(("norm", "radii"), [("Linf", ["0", "1/255", "3/255"]), ("L2", ["0", "0.03", "0.1"])])
def test_a_linear_models_curve_is_the_share_of_images_further_away(
    two_classes: Linear, norm: Norm, radii: list[str]
) -> None:
    distances = two_classes.distances(norm)
    curve = accuracy_curve(two_classes.subject(), norm, radii)
    expected = [int((distances > max(point.radius, 1e-9)).sum()) for point in curve.points]
    assert [point.correct for point in curve.points] == expected
    assert 0 < expected[-1] < expected[0] < N  # the formula must have something to say
    assert [point.eps for point in curve.points] == radii


def test_a_radius_owes_nothing_to_the_others(two_classes: Linear) -> None:
    subject = two_classes.subject()
    together = accuracy_curve(subject, "Linf", ["0", "2/255", "5/255"])
    assert accuracy_curve(subject, "Linf", ["5/255"]).points == together.points[2:]


def test_masking_shows() -> None:
    class Masked(nn.Module):
        """It errs in a thin shell of brightness alone, and what leaps over the shell finds no gradient."""

        def forward(self, x: Tensor) -> Tensor:
            brightness = x.flatten(1).mean(1) - 0.5
            seen = torch.where(brightness < 0.03, brightness, -1.0)
            return torch.stack([torch.full_like(seen, 0.01), seen], 1)

    images = torch.full((8, 1, 32, 32), 127, dtype=torch.uint8).numpy()
    labels = torch.zeros(8, dtype=torch.int64).numpy()
    subject = draw_sample(Masked(), images, labels, classes=2, seed=0)
    points = accuracy_curve(subject, "Linf", ["4/255", "0.9"]).points
    assert points[0].correct == 0
    assert points[1].correct > 4  # a larger ball, and the attack finds less: carried over, it would have found all


def test_a_point_has_wilsons_interval() -> None:
    point = CurvePoint("2/255", (True, False, True, False, False, True, False))
    assert point.accuracy == 3 / 7
    assert point.interval == wilson_interval(3, 7)
