"""Gradients of the file, trusted only after the importer has agreed with onnxruntime on its logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from torch import Tensor, nn

from exporters.claim.evidence import Floats
from exporters.differentiable.file_graph import FileGraph, open_graph
from exporters.differentiable.file_model import FileModel
from exporters.differentiable.logit_agreement import LogitAgreement, compare_with_onnxruntime
from exporters.file_attacks.target import MARGIN, Target

_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Gradients:
    """The modules whose gradients an attack may follow; both answer with onnxruntime's logits.

    Attributes:
        model: the file, its gradients zero where an operator saturates: a Clip, say, or an eight-bit number.
        through_clip: the same with gradients let through there; None for a graph in which nothing saturates.
        unrounded: the same with the gradients of the graph without its quantisers' rounding; None for a graph without
            quantisers. Where rounding is coarse, its straight-through gradient belongs to another point.
        scale: the median image's range of logits; what temperatures are parts of.
        tolerance: the margin, in this module's logits, beyond which an image counts as broken.
        is_softmax: whether a softmax at the end of the file was undone.
        graph: the importer alone, for holding it against the session on more images.
    """

    model: nn.Module
    through_clip: nn.Module | None
    unrounded: nn.Module | None
    scale: float
    tolerance: float
    is_softmax: bool
    graph: FileGraph


def open_gradients(
    target: Target, model: onnx.ModelProto, images: Floats, drawn: Floats
) -> tuple[Gradients | None, LogitAgreement]:
    """Import the graph, hold its logits against the session's, and join the two.

    Args:
        target: the open session.
        model: what it was opened from.
        images: float32 ``[n, C, H, W]`` on which the two must agree.
        drawn: float32 ``[n, C, H, W]``, random pictures on which they must agree too, by these pictures' own logits:
            images that are known beforehand show only what their author wants to be seen.

    Returns:
        The modules, or None where the logits disagree, and by how much they do.

    Raises:
        UnsupportedOperatorError: the graph holds an operator that has no gradient here.
    """
    session = target.session
    graph = open_graph(model, session.input_layout)
    agreement = min((compare_with_onnxruntime(session, graph, part) for part in (images, drawn)), key=_badness)
    if not agreement.passed:
        return None, agreement
    answers = session(images)
    # Pictures that nobody could foresee, too: a file may give probabilities on those that it knows, and something else,
    # whose logarithm has no gradient, on all others.
    softmax = is_softmax(answers) and is_softmax(session(drawn))

    def module(graph: FileGraph) -> nn.Module:
        file_model = FileModel(session, graph)
        return _LogOf(file_model) if softmax else file_model

    def other(**options: bool) -> nn.Module:
        return module(open_graph(model, session.input_layout, **options))

    # log(p_w / p_y) > MARGIN means p_w - p_y > MARGIN * p_w / (1 + MARGIN), and no range of p exceeds its largest.
    return Gradients(
        model=module(graph),
        through_clip=other(straight_through=True) if graph.saturates else None,
        unrounded=other(quantises=False) if graph.arithmetic == "int8" else None,
        scale=_scale(np.log(np.maximum(answers, _TINY)) if softmax else answers),
        tolerance=1.1 * MARGIN if softmax else target.tolerance,
        is_softmax=softmax,
        graph=graph,
    ), agreement


def _scale(logits: Floats) -> float:
    return float(np.median(np.ptp(logits.astype(np.float64), axis=1))) or 1.0


def _badness(found: LogitAgreement) -> tuple[bool, float, float]:
    """A key by which the worse of two agreements is the smaller."""
    return found.passed, found.argmax_agreement, -found.max_relative_error


def is_softmax(logits: Floats) -> bool:
    """Whether the outputs ``[B, K]`` are probabilities: none negative, each row adding up to 1."""
    return bool(len(logits) and (logits >= 0).all() and (np.abs(logits.sum(axis=1) - 1) < 1e-3).all())


class _LogOf(nn.Module):
    """``log p``: the logits, up to a constant, of a model that ends in a softmax."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities ``[B, K]`` of ``x`` ``[B, C, H, W]``."""
        probabilities: Any = self.model(x)
        logs: Tensor = probabilities.clamp_min(_TINY).log()
        return logs
