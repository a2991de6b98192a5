"""The module under attack: onnxruntime decides, the importer supplies the gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from exporters.differentiable.file_graph import FileGraph
from exporters.differentiable.graph import GraphModule
from exporters.model_file.runtime import Session, SessionModule


class FileModel(nn.Module):
    """``ort(x) + imp(x) - imp(x).detach()``: the logits are onnxruntime's to the bit, the gradient is the importer's.

    Args:
        session: the open file.
        graph: the same file, imported.
    """

    def __init__(self, session: Session, graph: FileGraph | GraphModule) -> None:
        super().__init__()
        self.decider = SessionModule(session)
        self.graph = graph

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, K]`` of ``x`` ``[B, C, H, W]`` in [0, 1]; where no gradient is wanted, only onnxruntime runs."""
        decided: Tensor = self.decider(x)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return decided
        logits: Tensor = _GradientFrom.apply(self.graph(x), decided)
        return logits


class _GradientFrom(torch.autograd.Function):
    # The sum in the formula would round, and turn an infinity into NaN; this gives its exact value.

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, imported: Tensor, decided: Tensor) -> Tensor:
        if imported.shape != decided.shape:
            raise ValueError("the importer and onnxruntime give logits of different shapes")
        return decided.clone()

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
