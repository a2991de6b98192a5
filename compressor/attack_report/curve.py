"""Accuracy against the radius of the ball, each radius attacked anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from compressor.attack_report.radii import radius_value
from compressor.attack_report.subject import AttackedSample
from compressor.core.types import Norm, Threat
from compressor.evaluation.suites import SuiteColumn
from compressor.numerics.losses import is_wrong
from compressor.numerics.statistics import wilson_interval

CURVE_STEPS = 20

# Steps of a quarter of the radius: shorter ones would not have turned around an L2 ball by the end.
_ATTACK = SuiteColumn(
    "curve", "cw-inf", {"steps": CURVE_STEPS, "step_size": "0.25eps", "start": "uniform", "decide": "first"}
)


@dataclass(frozen=True)
class CurvePoint:
    """The accuracy inside one ball.

    Attributes:
        eps: the radius as text; ``"0"`` is the natural image.
        robust: which images of the sample are robust.
    """

    eps: str
    robust: tuple[bool, ...]

    @property
    def radius(self) -> float:
        """In units of the pixel range."""
        return radius_value(self.eps)

    @property
    def correct(self) -> int:
        """How many images are robust."""
        return sum(self.robust)

    @property
    def n(self) -> int:
        """How many images there are."""
        return len(self.robust)

    @property
    def accuracy(self) -> float:
        """The fraction of images that are robust."""
        return self.correct / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, at 95 %."""
        return wilson_interval(self.correct, self.n)


@dataclass(frozen=True)
class Curve:
    """Accuracy at rising radii of one norm."""

    norm: Norm
    points: tuple[CurvePoint, ...]


def accuracy_curve(subject: AttackedSample, norm: Norm, radii: Sequence[str]) -> Curve:
    """Attack the sample with PGD-20 on the margin at each radius.

    No radius uses what another found. So the curve decreases because the attack finds more in a larger ball. Where it
    does not, the attack is being misled, and that must show.

    Args:
        subject: the model and the sample.
        norm: of the balls.
        radii: rising, ``"0"`` for the natural images.
    """
    return Curve(norm, tuple(CurvePoint(eps, _robust(subject, norm, eps)) for eps in radii))


def _robust(subject: AttackedSample, norm: Norm, eps: str) -> tuple[bool, ...]:
    part, broken = f"curve {norm} {eps}", []
    if eps == "0":
        broken += [is_wrong(subject.logits(x), y) for x, y, _ in subject.batches(part)]
    else:
        attack, threat = _ATTACK.build(), Threat(norm, eps)
        broken += [attack(subject.attacked, x, y, threat, noise).broken for x, y, noise in subject.batches(part)]
    return tuple((~torch.cat(broken)).tolist())
