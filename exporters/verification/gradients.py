"""Step 5: gradients of the file, trusted only after the importer has agreed with onnxruntime on its logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from exporters.differentiable import FileModel, GateResult, GraphModule, agreement, channels_last, import_graph
from exporters.evidence import Floats
from exporters.verification.target import MARGIN, Target


@dataclass(frozen=True)
class Gradients:
    """The modules whose gradients an attack may climb; both answer with onnxruntime's logits.

    Attributes:
        model: the file, its gradients zero where a Clip saturates.
        through_clip: the same with gradients let through there; None for a graph without Clip.
        tolerance: the margin, in this module's logits, beyond which an image counts as broken.
        is_softmax: whether a softmax at the end of the file was undone.
        graph: the importer alone, for holding it against the session on more images.
    """

    model: nn.Module
    through_clip: nn.Module | None
    tolerance: float
    is_softmax: bool
    graph: GraphModule


def open_gradients(
    target: Target, model: onnx.ModelProto, images: Floats, drawn: Floats
) -> tuple[Gradients | None, GateResult]:
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
    graph = channels_last(import_graph(model))
    gate = max(
        (agreement(session, graph, part) for part in (images, drawn)), key=lambda found: found.max_relative_error
    )
    if not gate.passed:
        return None, gate
    has_clip = any(node.op_type == "Clip" for node in model.graph.node)
    through = FileModel(session, channels_last(import_graph(model, straight_through=True))) if has_clip else None
    plain = FileModel(session, graph)
    if not is_softmax(session(images)):
        return Gradients(plain, through, target.tolerance, is_softmax=False, graph=graph), gate
    # log(p_w / p_y) > MARGIN means p_w - p_y > MARGIN * p_w / (1 + MARGIN), and no range of p exceeds its largest.
    tolerance = 1.1 * MARGIN
    return Gradients(
        _LogOf(plain), None if through is None else _LogOf(through), tolerance, is_softmax=True, graph=graph
    ), gate


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
        logs: Tensor = probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()
        return logs
