"""A file as an attack sees it: the importer proposes, and onnxruntime decides."""

from __future__ import annotations

import onnx
import torch
from torch import Tensor

from compressor.core.errors import UntrustedGradientsError
from compressor.frozen import Surrogate, chunk_for, uncertainty_between
from compressor.numerics.randomness import make_generator
from compressor.system.devices import full_float32
from exporters.differentiable.file_graph import open_graph
from exporters.differentiable.logit_agreement import compare_with_onnxruntime
from exporters.model_file.runtime import Session, SessionModule


@full_float32()
def open_attackable(session: Session, model: onnx.ModelProto, x: Tensor) -> Surrogate:
    """Import a file's graph, hold its logits against the session's, and join the two.

    Args:
        session: the open file; it decides what is broken.
        model: what it was opened from.
        x: float32 images ``[n, C, H, W]`` in [0, 1], n at least 1, on which the two must agree, as on noise; the
            graph computes on their device.

    Raises:
        UnsupportedOperatorError: the graph holds an operator that has no gradient here.
        UntrustedGradientsError: the two disagree.
    """
    graph = open_graph(model, session.input_layout).to(x.device)
    noise = torch.rand(x.shape, generator=make_generator("attackable", "noise"))
    agreement = compare_with_onnxruntime(session, graph, torch.cat([x.cpu(), noise]).numpy())
    if not agreement.passed:
        raise UntrustedGradientsError(
            f"the gradients of this file can't be trusted: the logits that they belong to differ from onnxruntime's by "
            f"{agreement.max_relative_error:.1e} of the logit scale.",
            "Attack the checkpoint that it was exported from; `compress verify` attacks the file by queries alone.",
        )
    decider = SessionModule(session)
    return Surrogate(graph, decider, uncertainty_between(graph, decider, x), chunk=chunk_for(graph, x))
