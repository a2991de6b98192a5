from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.evaluation.alarms.batch_dependence import CHECK


class InTraining(nn.Module):
    """Ignores eval(): BatchNorm takes the batch's own statistics."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)

    def forward(self, x: Tensor) -> Tensor:
        self.model.train()
        logits: Tensor = self.model(x)
        return logits


class BySize(nn.Module):
    """Adds to the logits what a function of the batch's size says."""

    def __init__(self, model: nn.Module, bonus: Callable[[int], float]) -> None:
        super().__init__()
        self.model, self.bonus = model, bonus

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits + self.bonus(len(x)) * nn.functional.one_hot(torch.tensor(3), 10)


def without_statistics(model: nn.Module) -> nn.Module:
    copied = copy.deepcopy(model)
    for module in copied.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = module.running_var = None
            module.track_running_stats = False
    return copied


@pytest.mark.parametrize("make", [InTraining, without_statistics], ids=["train mode", "no running statistics"])
def test_batchnorm_over_the_batch_rings(robust: nn.Module, examine: Any, make: Any) -> None:
    found = CHECK(examine(make(robust)))
    assert found == "4 of 4 images get other logits among copies of themselves than in the batch of the sample"


def test_batchnorm_that_cannot_take_an_image_alone_rings_before_it_must(held_out: Any, examine: Any) -> None:
    torch.manual_seed(0)
    model = InTraining(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10)))
    assert CHECK(examine(model)) is not None


@pytest.mark.parametrize(
    ("bonus", "company"),
    [
        (lambda size: 1.0 * (size == 1), "alone"),
        (lambda size: 1.0 * (size == 32), "in shuffled batches"),
        (lambda size: 1.0 * (size == 4), "among copies"),
        (lambda size: 0.01 * (size < 50), "among copies"),
    ],
)
def test_a_model_that_looks_at_the_size_of_its_batch_rings(
    robust: nn.Module, examine: Any, bonus: Any, company: str
) -> None:
    found = CHECK(examine(BySize(robust, bonus), batch_size=64))
    assert found is not None
    assert company in found


def test_rounding_does_not_ring(robust: nn.Module, examine: Any) -> None:
    assert CHECK(examine(BySize(robust, lambda size: 1e-5 / size))) is None


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_healthy_models_stay_silent(healthy: dict[str, nn.Module], examine: Any, batch_size: int) -> None:
    assert [CHECK(examine(model, batch_size=batch_size)) for model in healthy.values()] == [None] * 5


def test_of_a_random_model_nothing_is_said(robust: nn.Module, examine: Any, behind: Any) -> None:
    assert CHECK(examine(behind(robust, lambda logits: logits + torch.rand(()).item()))) is None
