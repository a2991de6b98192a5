"""The precision of the outer step: its layers under autocast, its losses always in float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from compressor.runs.recipe import Recipe

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class FloatLogits(nn.Module):
    """A student whose logits come in float32: a softmax, a KL or a difference of logits in bf16 is off by percents.

    Args:
        student: called as it is.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, K]``, float32 (float64 stays)."""
        logits: Tensor = self.student(x)
        return logits.float() if logits.dtype in _AUTOCAST.values() else logits


def outer_autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[Any]:
    """Autocast where the recipe asks for it; the attack's precision is the twin's."""
    dtype = _AUTOCAST.get(recipe.outer_precision)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
