"""The outer step's precision: layers under autocast, losses and the teacher out of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.runs.recipe import resolve
from compressor.training.step.outer_precision import FloatLogits, outer_autocast
from compressor.training.teaching.teacher import FrozenTeacher

CPU = torch.device("cpu")


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_layers_are_cast_and_logits_come_back_in_float32(precision: str) -> None:
    recipe = resolve("sat", "resnet18", None, {"outer_precision": precision})
    x, student = torch.rand(3, 3, 2, 2), network()
    with outer_autocast(recipe, CPU):
        assert student(x).dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        logits = FloatLogits(student)(x)
        assert logits.dtype == torch.float32
        assert logits.log_softmax(1).dtype == torch.float32
    logits.sum().backward()
    assert student[1].weight.grad is not None


def test_in_fp32_nothing_is_cast() -> None:
    x, student = torch.rand(3, 3, 2, 2), network()
    with outer_autocast(resolve("sat", "resnet18", None, {}), CPU):
        assert torch.equal(FloatLogits(student)(x), student(x))
        assert FloatLogits(student.double())(x.double()).dtype == torch.float64


@pytest.mark.parametrize("grad", [True, False])
def test_the_teacher_keeps_its_own_precision_in_the_midst_of_an_outer_step(grad: bool) -> None:
    teacher, x = FrozenTeacher(network()), torch.rand(3, 3, 2, 2)
    with torch.set_grad_enabled(grad):
        alone = teacher(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = teacher(x)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, alone)
