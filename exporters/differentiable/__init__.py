"""An ONNX file as a torch module with gradients: attacks differentiate it, and onnxruntime decides."""

from __future__ import annotations

from exporters.differentiable.attackable import open_attackable
from exporters.differentiable.file_graph import FileGraph, open_graph
from exporters.differentiable.file_model import FileModel
from exporters.differentiable.graph import GraphModule, import_graph
from exporters.differentiable.logit_agreement import (
    RELATIVE_LOGIT_TOLERANCE,
    LogitAgreement,
    compare_logits,
    compare_with_onnxruntime,
)
from exporters.differentiable.registry import operators_with_gradients

__all__ = [
    "RELATIVE_LOGIT_TOLERANCE",
    "FileGraph",
    "FileModel",
    "GraphModule",
    "LogitAgreement",
    "compare_logits",
    "compare_with_onnxruntime",
    "import_graph",
    "open_attackable",
    "open_graph",
    "operators_with_gradients",
]
