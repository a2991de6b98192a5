from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compressor.attacks._gradient import GradientAttack, step_length
from compressor.core.errors import UsageError
from compressor.core.registry import ATTACKS
from compressor.core.types import Threat
from compressor.numerics.randomness import make_generator

ATTACK: GradientAttack = ATTACKS.get("pgd-sat")


def test_it_is_configured_as_the_paper_evaluates() -> None:
    assert asdict(ATTACK) == {
        "steps": 20,
        "step_size": "2/255",
        "start": "uniform",
        "start_scale": 1.0,
        "loss": "cross_entropy",
        "decide": "last",
    }


def binary(seed: int = 0) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    generator = make_generator(seed, "binary")
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    with torch.no_grad():
        model[1].weight.copy_(0.3 * torch.randn(2, 48, generator=generator))
        model[1].bias.zero_()
    x = torch.rand(20, 3, 4, 4, generator=generator)
    return model, x, model(x).argmax(1)


@pytest.mark.parametrize("name", ["pgd-sat", "pgd-trades", "cw-inf", "fgsm"])
def test_with_two_classes_every_gradient_attack_ends_in_the_optimal_corner(name: str) -> None:
    model, x, y = binary()
    threat = Threat("Linf", "8/255")
    x_adv, _ = ATTACKS.get(name)(model, x, y, threat, make_generator(1))
    weight = model[1].weight.detach().numpy()
    towards = np.stack([weight[1 - label] - weight[label] for label in y.tolist()]).reshape(x.shape)
    eps = np.float32(threat.radius)
    corner = np.where(towards > 0, x.numpy() + eps, x.numpy() - eps).clip(0, 1)
    np.testing.assert_array_equal(x_adv.numpy(), corner)


@pytest.mark.parametrize(
    ("step_size", "eps", "length"),
    [("2/255", "8/255", 2 / 255), ("0.003", "8/255", 0.003), ("0.25eps", "8/255", 2 / 255), ("1eps", "0.1", 0.1)],
)
def test_steps_are_in_pixels_or_in_radii(step_size: str, eps: str, length: float) -> None:
    assert step_length(step_size, Threat("Linf", eps)) == length


@pytest.mark.parametrize("step_size", ["", "eps", "fast", "0", "-1/255", "1/0", "1/0eps", "nan", "inf"])
def test_a_step_size_that_is_none_is_refused(step_size: str) -> None:
    with pytest.raises(UsageError, match="step size") as refused:
        replace(ATTACK, step_size=step_size)
    assert refused.value.hint


def test_no_steps_are_refused() -> None:
    with pytest.raises(UsageError, match="0 steps"):
        replace(ATTACK, steps=0)


class Hill(nn.Module):
    """Two classes; wrong only while the first pixel is between 0.52 and 0.54, yet its logit falls all the way."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        pixel = x[:, 0, 0, 0]
        inside = (pixel > 0.52) & (pixel < 0.54)
        right = 2 - pixel + torch.where(inside, -4.0, 0.0)
        return torch.stack([right, torch.zeros_like(pixel)], dim=1)


def test_the_last_iterate_decides_or_the_first_that_is_wrong() -> None:
    x, y, threat = torch.full((3, 1, 1, 1), 0.5), torch.zeros(3, dtype=torch.int64), Threat("Linf", "0.1")
    last = GradientAttack(steps=10, step_size="0.01", start="none")
    first = replace(last, decide="first")

    hill = Hill()
    x_adv, broken = last(hill, x, y, threat, make_generator(0))
    assert not broken.any()
    torch.testing.assert_close(x_adv, torch.full_like(x, 0.6))
    assert hill.seen == [3] * 12  # the natural images, ten steps, the verdict

    hill = Hill()
    x_adv, broken = first(hill, x, y, threat, make_generator(0))
    assert broken.all()
    assert ((x_adv > 0.52) & (x_adv < 0.54)).all()
    assert sum(hill.seen) < 3 * 12


def test_stopping_at_the_first_wrong_iterate_breaks_no_fewer(linear_digits: Any) -> None:
    arguments = (linear_digits.model, linear_digits.x, linear_digits.y, Threat("Linf", "0.05"))
    last = ATTACK(*arguments, make_generator(0)).broken
    first = replace(ATTACK, decide="first")(*arguments, make_generator(0)).broken
    assert last.any()
    assert not (last & ~first).any()
