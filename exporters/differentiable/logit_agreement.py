"""Whether the importer computes what onnxruntime computes: before that is so, its gradients are not trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from compressor.system.devices import full_float32
from exporters.differentiable.arithmetic import Arithmetic
from exporters.differentiable.file_graph import FileGraph
from exporters.differentiable.graph import GraphModule
from exporters.model_file.runtime import Images, Logits, Session

RELATIVE_LOGIT_TOLERANCE = 1e-4
"""fp32: the largest logit difference that passes, as a part of the logit scale (the gate)."""
HALF_LOGIT_TOLERANCE = 2.0**-8
"""fp16: eight times its rounding, since a processor that computes in float16 rounds after every operator."""
INT8_AGREEMENT = 0.99
"""int8: the part of the images that must be classified alike (the gate)."""
INT8_STEP = 1 / 128
"""int8: one quantum, as a part of the logit scale. Where rounding falls the other way once, a logit moves by about so
much; a decision closer than that is a tie."""
INT8_LOGIT_TOLERANCE = 8 * INT8_STEP
"""int8: the largest logit difference of the median image that passes, as a part of the logit scale: eight quanta.
Classes alone may agree while gradients are of other numbers altogether."""


@dataclass(frozen=True)
class LogitAgreement:
    """How far two computations of one model's logits are apart.

    Attributes:
        max_relative_error: ``max |a - b| / scale`` over all images and classes; infinite where a logit is not finite.
        argmax_agreement: the part of the images, 0 to 1, on which both predict the same class; of an ``int8`` file,
            ties count as the same.
        scale: the median over the images of their largest minus their smallest logit.
        passed: whether the error is within the tolerance, so that only ties can be predicted differently; of an
            ``int8`` file, whether the agreement is large enough and most images' logits are within eight quanta.
    """

    max_relative_error: float
    argmax_agreement: float
    scale: float
    passed: bool

    def __str__(self) -> str:
        agreement = f", predictions alike on {self.argmax_agreement:.1%}" if self.argmax_agreement < 1 else ""
        return f"logits to {self.max_relative_error:.1e} of their scale{agreement}"


@full_float32()
def compare_with_onnxruntime(session: Session, graph: FileGraph | GraphModule, images: Images) -> LogitAgreement:
    """Compare the importer with onnxruntime on ``images`` float32 ``[B, C, H, W]`` in [0, 1]; B = 0 does not pass.

    The rule is that of the graph's arithmetic: an eight-bit file rounds between its operators, and what rounds the
    other way there is off by a quantum and not by a last bit.
    """
    device = next(iter(graph.buffers()), torch.empty(0)).device
    size = session.batch_size
    with torch.no_grad():
        parts = [graph(torch.from_numpy(images[i : i + size]).to(device)) for i in range(0, len(images), size)]
    decided = session(images)
    imported = torch.cat(parts).cpu().numpy() if parts else np.zeros_like(decided)
    return compare_as(graph.arithmetic, decided, imported)


def compare_as(arithmetic: Arithmetic, reference: Logits, other: Logits) -> LogitAgreement:
    """Compare two sets of logits ``[B, K]`` of the same images, by the rule of the arithmetic that they come of.

    Args:
        arithmetic: of the file.
        reference: the logits that decide.
        other: the logits to be checked.
    """
    match arithmetic:
        case "int8":
            return compare_predictions(reference, other)
        case "fp16":
            return compare_logits(reference, other, HALF_LOGIT_TOLERANCE)
        case _:
            return compare_logits(reference, other)


def compare_predictions(reference: Logits, other: Logits) -> LogitAgreement:
    """Compare two sets of logits ``[B, K]`` by the classes that they predict, ties within ``INT8_STEP`` aside.

    And by the logits of the median image, so that few roundings that fall the other way do not count.

    Args:
        reference: the logits that decide.
        other: the logits to be checked.
    """
    result = compare_logits(reference, other)
    if not math.isfinite(result.max_relative_error):
        return result
    rows = np.arange(len(reference))
    lead = reference.max(1).astype(np.float64) - reference[rows, other.argmax(1)]
    alike = float((lead <= INT8_STEP * result.scale).mean())
    apart = float(np.median(np.abs(reference.astype(np.float64) - other).max(1)))
    near = apart <= INT8_LOGIT_TOLERANCE * result.scale
    return replace(result, argmax_agreement=alike, passed=near and alike >= INT8_AGREEMENT)


def compare_logits(reference: Logits, other: Logits, tolerance: float = RELATIVE_LOGIT_TOLERANCE) -> LogitAgreement:
    """Compare two sets of logits ``[B, K]`` of the same images.

    The scale is a spread and not a magnitude, so that a constant added to all logits cannot hide a difference; and it
    is a median, so that a few images with huge logits cannot.

    Args:
        reference: the logits that decide.
        other: the logits to be checked.
        tolerance: the largest relative error that passes.
    """
    if reference.shape != other.shape or reference.size == 0:
        return LogitAgreement(math.inf, 0.0, 0.0, passed=False)
    agree = float((reference.argmax(1) == other.argmax(1)).mean())
    if not (np.isfinite(reference).all() and np.isfinite(other).all()):
        return LogitAgreement(math.inf, agree, 0.0, passed=False)
    wide, narrow = reference.astype(np.float64), other.astype(np.float64)
    scale = float(np.median(wide.max(1) - wide.min(1)))
    difference = float(np.abs(wide - narrow).max())
    error = difference / scale if scale > 0 else (0.0 if difference == 0 else math.inf)
    return LogitAgreement(error, agree, scale, passed=error <= tolerance)
