from __future__ import annotations

from typing import Any

import torch
from torch import nn

from compressor.attacks._gradient import GradientAttack
from compressor.core.registry import ATTACKS
from compressor.core.types import Threat
from compressor.numerics.randomness import make_generator


def test_it_is_configured_as_the_paper_evaluates() -> None:
    assert ATTACKS.get("pgd-trades") == GradientAttack(20, "0.003", "gaussian", 0.001, "cross_entropy", "last")


class Watched(nn.Module):
    """Hands on to a model, and keeps every batch it sees."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.detach().clone())
        return self.model(x)


def test_its_first_gradient_is_taken_beside_the_image_and_no_step_is_longer_than_it_says(linear_digits: Any) -> None:
    x = linear_digits.x * 0.8 + 0.1
    y = linear_digits.model(x).argmax(1)
    watched = Watched(linear_digits.model)
    ATTACKS.get("pgd-trades")(watched, x, y, Threat(), make_generator(4))
    natural, start, *rest = watched.seen
    assert torch.equal(natural, x)
    torch.testing.assert_close(start - x, 0.001 * torch.randn(x.shape, generator=make_generator(4)), atol=1e-6, rtol=0)
    steps = [after - before for before, after in zip([start, *rest], rest, strict=False)]
    assert len(steps) == 20
    assert all(step.abs().max() <= 0.003 + 1e-6 for step in steps)
