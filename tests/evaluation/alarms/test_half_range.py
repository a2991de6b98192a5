from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.core.types import Threat
from compressor.evaluation.alarms.half_range import CHECK, _half_of_the_range
from compressor.numerics.ascent import project
from tests.support.networks import Steps

THREATS = [Threat("Linf", "0.1"), Threat("L2", "0.5")]


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_masked_models_ring(robust: nn.Module, examine: Any, behind: Any, threat: Threat) -> None:
    for masked in (behind(robust, torch.round), Steps(robust)):
        found = CHECK(examine(masked, threat=threat))
        assert found is not None
        survivors, tried = (int(word) for word in found.split() if word.isdigit() and word != "0.5")
        assert 0 < survivors <= tried <= 16


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_healthy_models_stay_silent(healthy: dict[str, nn.Module], examine: Any, threat: Threat, seed: int) -> None:
    assert [CHECK(examine(model, threat=threat, seed=seed)) for model in healthy.values()] == [None] * 5


def test_a_constant_model_is_no_alarm(constant: nn.Module, examine: Any) -> None:
    examined = examine(constant)
    assert bool(examined.right.any())
    assert CHECK(examined) is None


def test_a_survivor_without_a_witness_is_no_alarm(robust: nn.Module, examine: Any) -> None:
    class AlmostConstant(nn.Module):
        """Says 9, and 0 of pictures that are almost white, which no ball of half the range here holds."""

        def forward(self, x: Tensor) -> Tensor:
            white = (x.flatten(1).mean(1) > 0.99).float()
            return nn.functional.one_hot(torch.where(white > 0, 0, 9), 10) + 0 * x.sum((1, 2, 3))[:, None]

    examined = examine(AlmostConstant())
    assert bool(examined.right.any())
    assert CHECK(examined) is None


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_the_ball_holds_grey_whatever_its_centre(robust: nn.Module, examine: Any, threat: Threat) -> None:
    examined = examine(robust, threat=threat)
    grey = torch.full_like(examined.x, 0.5)
    for centre in (examined.x, torch.zeros_like(grey), torch.ones_like(grey)):
        assert torch.equal(project(grey, centre, _half_of_the_range(examined)), grey)


def test_without_gradients_there_is_nothing_to_climb(robust: nn.Module, examine: Any, behind: Any) -> None:
    plain = examine(robust)
    assert CHECK(examine(behind(robust, Tensor.detach), report=plain.report)) is None
