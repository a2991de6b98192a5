from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from compressor.core.errors import UsageError
from compressor.core.registry import ATTACKS
from compressor.core.types import Threat
from compressor.numerics.randomness import make_generator

ATTACK = ATTACKS.get("pgd-targeted")


def test_it_is_configured_as_it_says() -> None:
    assert (ATTACK.targets, ATTACK.steps, ATTACK.step_size, ATTACK.restarts) == (1, 20, "0.25eps", 1)


def test_of_a_linear_model_it_ends_in_the_best_corner_for_its_target(linear_digits: Any) -> None:
    """Where the target can't be reached, the margin is still maximal: the corner along the difference of weights."""
    model, x, y = linear_digits.model, linear_digits.x, linear_digits.y
    threat = Threat("Linf", "0.01")
    right = model(x).argmax(1) == y
    x, y = x[right], y[right]
    result = ATTACK(model, x, y, threat, make_generator(0))
    robust_so_far = ~result.broken
    target = model(x).scatter(1, y.unsqueeze(1), float("-inf")).argmax(1)
    weight = model[1].weight.detach()
    towards = (weight[target] - weight[y]).reshape(x.shape)
    eps = np.float32(threat.radius)
    corner = torch.where(towards > 0, x + eps, x - eps).clamp(0, 1)
    counts = (towards != 0) & robust_so_far.view(-1, 1, 1, 1)
    assert robust_so_far.any()
    assert torch.equal(result.x_adv[counts], corner[counts])


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"targets": 0}, {"restarts": 0}, {"step_size": "far"}])
def test_what_is_no_attack_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(ATTACK, **wrong)
