from __future__ import annotations

from typing import Any

import torch
from torch import nn

from compressor.core.registry import ATTACKS
from compressor.core.types import Threat
from compressor.numerics.randomness import make_generator

ATTACK = ATTACKS.get("pgd-multitargeted")
THREAT = Threat("Linf", "0.08")


def test_it_is_configured_as_it_says() -> None:
    assert (ATTACK.targets, ATTACK.steps, ATTACK.step_size, ATTACK.restarts) == (9, 20, "0.25eps", 1)


def test_it_finds_every_breakable_image_of_a_linear_model(linear_digits: Any) -> None:
    model, x, y = linear_digits.model, linear_digits.x, linear_digits.y
    breakable = linear_digits.breakable(THREAT)
    found = ATTACK(model, x, y, THREAT, make_generator(0)).broken.numpy()
    assert (found == breakable).all()


def test_an_image_leaves_when_it_has_fallen() -> None:
    """Counted through the model: images that fell are in no later batch."""
    asked: list[int] = []
    linear = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    generator = make_generator(0)
    with torch.no_grad():
        linear[1].weight.copy_(torch.randn(5, 16, generator=generator))
    x = torch.rand(20, 1, 4, 4, generator=generator)
    y = linear(x).argmax(1)
    linear.register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    broken = ATTACK(linear, x, y, Threat("Linf", "0.05"), make_generator(0)).broken
    assert 0 < int(broken.sum()) < 20
    assert asked[-2] == int((~broken).sum())  # the last call judges what was found
    assert sum(asked) < 20 * len(asked) * 0.9
