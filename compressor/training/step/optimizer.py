"""The optimizer that a recipe asks for: SGD, and which parameters its weight decay reaches."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from compressor.runs.recipe import Recipe


def make_optimizer(student: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD on all parameters; with ``weight_decay_on = weights``, those with fewer than two axes do not decay."""
    return torch.optim.SGD(
        _groups(student, recipe),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )


def _groups(student: nn.Module, recipe: Recipe) -> Any:
    if recipe.weight_decay_on == "all":
        return student.parameters()
    weights = [p for p in student.parameters() if p.ndim > 1]
    others = [p for p in student.parameters() if p.ndim <= 1]  # biases, and the scale and shift of a BatchNorm
    return [{"params": weights}, {"params": others, "weight_decay": 0.0}]
