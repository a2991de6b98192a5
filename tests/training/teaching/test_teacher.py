"""The look at a teacher warns of what makes bad students, and of nothing else; the frozen teacher stays frozen."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.evaluation.quick import QuickAccuracy
from compressor.training.teaching.teacher import FrozenTeacher, teacher_warnings


@pytest.mark.parametrize(
    ("clean", "robust", "entropy", "says"),
    [
        (180, 100, 1.2, None),
        (22, 20, 2.2, "near chance"),
        (180, 2, 1.0, "not robust"),
        (190, 120, 0.05, "saturated"),
    ],
)
def test_warnings(clean: int, robust: int, entropy: float, says: str | None) -> None:
    found = teacher_warnings(QuickAccuracy(200, clean, robust, entropy), classes=10)
    assert len(found) == (says is not None)
    assert says is None or says in found[0]


def test_the_frozen_teacher_ignores_train_and_passes_gradients_to_its_input() -> None:
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, 3))
    teacher = FrozenTeacher(network)
    nn.Sequential(teacher).train()
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    x = torch.rand(2, 1, 2, 2, requires_grad=True)
    teacher(x).sum().backward()
    assert x.grad is not None
    assert not teacher.soft_labels(x).requires_grad
