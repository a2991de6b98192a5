from __future__ import annotations

from typing import Any

import torch
from torch import nn

from compressor.core.registry import ATTACKS
from compressor.core.types import Threat
from compressor.numerics.randomness import make_generator

ATTACK = ATTACKS.get("apgd-dlr")
THREAT = Threat("Linf", "0.06")


class Scaled(nn.Module):
    def __init__(self, model: nn.Module, scale: float) -> None:
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(x) * self.scale
        return logits


def test_its_defaults_are_the_authors() -> None:
    assert (ATTACK.loss, ATTACK.steps, ATTACK.restarts) == ("dlr", 100, 1)


def test_scaled_logits_blind_the_cross_entropy_and_not_this(linear_digits: Any) -> None:
    sharp = Scaled(linear_digits.model, 1e4)
    x, y = linear_digits.x, linear_digits.y
    plain, scaled = (
        ATTACK(model, x, y, THREAT, make_generator(0)).broken.float().mean() for model in (linear_digits.model, sharp)
    )
    by_cross_entropy = ATTACKS.get("apgd-ce")(sharp, x, y, THREAT, make_generator(0)).broken.float().mean()
    assert abs(plain - scaled) < 0.01
    assert by_cross_entropy < scaled - 0.1
