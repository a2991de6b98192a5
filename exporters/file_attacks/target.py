"""The file under examination: what it answers, and by what margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from exporters.claim.evidence import Bits, Floats, Integers
from exporters.differentiable.arithmetic import Arithmetic, arithmetic_of, output_step
from exporters.differentiable.logit_agreement import HALF_LOGIT_TOLERANCE, INT8_STEP
from exporters.model_file.runtime import Session

MARGIN = 1e-4
"""Closer decisions than this part of the logit scale may differ on another machine: they prove nothing."""

_SLACK: dict[Arithmetic, float] = {"fp16": HALF_LOGIT_TOLERANCE, "int8": INT8_STEP}
_COARSEST_STEP = 4 * INT8_STEP  # of eight-bit logits: a file that rounds them more coarsely has another reason to

_TIES_PER_STEP = 8.0
"""Leads after attacks spread over an eighth of the logit scale or more: a step may hold eight times as large a part of
the images as it is of the scale."""

Margins = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Target:
    """An open session and the margin, in its own logits, below which its decisions are taken as ties.

    Attributes:
        session: onnxruntime decides, always.
        tolerance: in logits; the widest that any image has.
        slack: in logits: by how much the same file may answer otherwise on another machine or in another batch. More
            than the tolerance where a file rounds between its operators: one quantum of an eight-bit file.
        ties_by_format: the part of the images that may be robust by a tie because the logits are numbers of few bits.
    """

    session: Session
    tolerance: float
    slack: float
    ties_by_format: float = 0.0

    @property
    def rounds(self) -> bool:
        """Whether the file rounds between its operators."""
        return self.slack > self.tolerance

    def judge(self, images: Floats, labels: Integers) -> tuple[Margins, Margins]:
        """By how much the right class leads, and each image's own tolerance, both float64 ``[B]``."""
        logits = self.session(images)
        return lead(logits, labels), self.tolerances(logits)

    def judge_again(self, images: Floats, labels: Integers) -> tuple[Margins, Margins]:
        """The same for outcomes that were found elsewhere: each image's slack in place of its tolerance."""
        logits = self.session(images)
        return lead(logits, labels), self.slacks(logits)

    def slacks(self, logits: Floats) -> Margins:
        """By how much each image's logits may differ on another machine or in another batch, ``[B]``."""
        return np.maximum(self.tolerances(logits), self.slack if self.rounds else 0.0)

    def tolerances(self, logits: Floats) -> Margins:
        """``min(tolerance, 1e-4 * range of the image's logits)``, ``[B]``.

        A file that shrinks its logits where natural images never lie would otherwise turn every error there into a
        tie. The minimum of the two: a file can only tighten what it is judged by.
        """
        with np.errstate(invalid="ignore"):
            return np.asarray(np.fmin(self.tolerance, MARGIN * np.ptp(logits.astype(np.float64), axis=1)))

    def breaks(self, images: Floats, labels: Integers) -> Bits:
        """Which images are misclassified beyond doubt, bool ``[B]``."""
        leads, tolerances = self.judge(images, labels)
        return np.asarray(leads < -tolerances)


def open_file_target(session: Session, images: Floats, model: onnx.ModelProto) -> Target:
    """Measure the logit scale on ``images`` ``[n, C, H, W]``, and take decisions within its ten-thousandth as ties.

    The scale is the median image's range of logits, and for the ties never more than 1: a file whose logits are huge
    must not buy itself a wide margin, and one whose logits are tiny must not hide below a fixed one.

    Args:
        session: the open file.
        images: float32 ``[n, C, H, W]``.
        model: the file: whether it rounds is read from its graph.
    """
    logits = session(images).astype(np.float64)
    finite = logits[np.isfinite(logits).all(axis=1)]
    scale = float(np.median(np.ptp(finite, axis=1))) if len(finite) else 0.0
    tolerance = MARGIN * min(1.0, scale)
    arithmetic, step = arithmetic_of(model), output_step(model)
    slack = tolerance if arithmetic == "fp32" else max(_SLACK[arithmetic] * scale, tolerance)
    fine = 0 < step <= _COARSEST_STEP * scale
    return Target(session, tolerance, slack, ties_by_format=_TIES_PER_STEP * step / scale if fine else 0.0)


def lead(logits: Floats, labels: Integers) -> Margins:
    """``z_y - max_{j != y} z_j`` of each image, in float64; minus infinity where a logit is not a finite number.

    Args:
        logits: ``[B, K]``, K at least 2.
        labels: ``[B]``.
    """
    rows = np.arange(len(labels))
    wrong = logits.astype(np.float64)
    right = wrong[rows, labels].copy()
    wrong[rows, labels] = -np.inf
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(logits).all(axis=1), right - wrong.max(axis=1), -np.inf)
