from __future__ import annotations

from math import pi
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.core.types import Threat
from compressor.evaluation.alarms.more_eps_not_weaker import CHECK


class Wave(nn.Module):
    """Leads by ``cos(pi t / 0.1)``, t being how far the mean of a picture of 0.5 has moved: wrong at 0.1, right at 0.2.

    Steps of 0.05 pass the first trough of the wave; steps of 0.2 go from crest to crest.
    """

    def forward(self, x: Tensor) -> Tensor:
        lead = torch.cos((x.flatten(1).mean(1) - 0.5) * pi / 0.1)
        return torch.stack([lead, -lead], 1)


def grey(n: int) -> dict[str, Any]:
    return {"x": torch.full((n, 1, 8, 8), 0.5), "y": torch.zeros(n, dtype=torch.int64)}


def test_a_wave_that_long_steps_jump_over_rings(robust: nn.Module, examine: Any) -> None:
    plain = examine(robust)
    found = CHECK(examine(Wave(), report=plain.report, attacked=Wave(), **grey(64)))
    assert found is not None
    # A random start moves the mean a little, so some images fall on the way from crest to crest.
    large, of, small = (int(word) for word in found.split() if word.isdigit())
    assert (of, small) == (64, 0)
    assert large > 30
    assert found.endswith("at 0.2")


def test_few_images_are_chance(robust: nn.Module, examine: Any) -> None:
    plain = examine(robust)
    assert CHECK(examine(Wave(), report=plain.report, attacked=Wave(), **grey(6))) is None


@pytest.mark.parametrize("threat", [Threat("Linf", "0.1"), Threat("Linf", "0.7"), Threat("L2", "0.5")], ids=str)
@pytest.mark.parametrize("seed", range(2))
def test_healthy_models_stay_silent(healthy: dict[str, nn.Module], examine: Any, threat: Threat, seed: int) -> None:
    assert [CHECK(examine(model, threat=threat, seed=seed)) for model in healthy.values()] == [None] * 5


def test_a_constant_model_stays_silent(constant: nn.Module, examine: Any) -> None:
    assert CHECK(examine(constant)) is None
