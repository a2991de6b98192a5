from __future__ import annotations

from typing import Any

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import nn

from compressor.attacks.square import Square
from compressor.randomness import make_generator
from compressor.types import Threat


@pytest.mark.parametrize("threat", [Threat("Linf", "0.1"), Threat("L2", "0.6")], ids=str)
def test_it_is_the_library_attack_with_the_seed_of_the_generator(linear_digits: Any, threat: Threat) -> None:
    model, x, y = linear_digits.model, linear_digits.x[:60], linear_digits.y[:60]
    right = model(x).argmax(1) == y
    x, y = x[right], y[right]
    ours = Square(queries=80)(model, x, y, threat, make_generator(2))
    plain = SquareAttack(model, norm=threat.norm, eps=threat.radius, n_queries=80, device="cpu", resc_schedule=False,
                         seed=int(torch.randint(2**62, (), generator=make_generator(2))))  # fmt: skip
    with torch.random.fork_rng(), torch.no_grad():
        x_adv = plain.perturb(x, y)
    assert ours.broken.any()
    assert torch.equal(ours.broken, model(x_adv).argmax(1) != y)


class NoGradient(nn.Module):
    """A classifier that rounds its logits, as quantisation does: its gradient is zero everywhere."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.model(x) * 100).round() / 100


def test_it_needs_no_gradient(linear_digits: Any) -> None:
    model = NoGradient(linear_digits.model)
    y = model(linear_digits.x).argmax(1)
    _, broken = Square(queries=200)(model, linear_digits.x, y, Threat("Linf", "0.1"), make_generator(0))
    assert broken.sum() > 30


def test_more_queries_break_no_fewer(linear_digits: Any) -> None:
    counts = [
        int(Square(queries=n)(linear_digits.model, linear_digits.x, linear_digits.y, Threat("Linf", "0.05"),
                              make_generator(0)).broken.sum())
        for n in (1, 30, 300)
    ]  # fmt: skip
    assert counts[0] <= counts[1] <= counts[2]
    assert counts[0] < counts[2]


def test_a_query_is_a_forward_pass(linear_digits: Any) -> None:
    seen: list[int] = []

    class Counting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            return linear_digits.model(x)

    right = linear_digits.model(linear_digits.x).argmax(1) == linear_digits.y
    x, y = linear_digits.x[right][:1], linear_digits.y[right][:1]
    for queries in (10, 110):
        seen.clear()
        Square(queries=queries)(Counting(), x, y, Threat("Linf", "0.001"), make_generator(0))
        assert queries <= sum(seen) <= queries + 20
