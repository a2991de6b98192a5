"""Oracle: a linear model, whose every breakable image some target breaks; the loops are held against the library's in
test_apgd_ce.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from compressor.attacks._search import likeliest_wrong_classes
from compressor.errors import UsageError
from compressor.randomness import make_generator
from compressor.registry import ATTACKS
from compressor.types import Threat

ATTACK = ATTACKS.get("apgd-t")
THREAT = Threat("Linf", "0.08")


def test_its_defaults_are_the_authors() -> None:
    assert (ATTACK.steps, ATTACK.targets, ATTACK.restarts) == (100, 9, 1)


def test_all_targets_together_find_every_breakable_image_of_a_linear_model(linear_digits: Any) -> None:
    breakable = linear_digits.breakable(THREAT)
    found = ATTACK(linear_digits.model, linear_digits.x, linear_digits.y, THREAT, make_generator(0)).broken
    assert 0 < breakable.sum() < len(breakable)
    assert not (found.numpy() & ~breakable).any()
    assert (found.numpy() == breakable).mean() > 0.995


@pytest.mark.parametrize("name", ["apgd-t", "pgd-multitargeted"])
def test_another_class_than_the_likeliest_may_be_the_one_in_reach(name: str) -> None:
    """The runner-up is a constant; the class that the image can move is the last of all."""
    linear = nn.Linear(16, 5, bias=True)
    with torch.no_grad():
        linear.weight.zero_()
        linear.weight[4] = 1.0
        linear.bias.copy_(torch.tensor([1.0, 0.9, 0.5, 0.0, -8.0]))
    model = nn.Sequential(nn.Flatten(), linear)
    x, y = torch.full((1, 1, 4, 4), 0.5), torch.zeros(1, dtype=torch.int64)
    threat = Threat("Linf", "0.1")
    attack = replace(ATTACKS.get(name), steps=10)
    assert not replace(attack, targets=3)(model, x, y, threat, make_generator(0)).broken.any()
    assert replace(attack, targets=4)(model, x, y, threat, make_generator(0)).broken.all()


def test_targets_are_the_likeliest_wrong_classes_in_order() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 5.0, 6.0, 7.0]])
    y = torch.tensor([0, 2])
    found = likeliest_wrong_classes(nn.Identity(), logits, y, 9)
    assert found.tolist() == [[2, 1, 3], [3, 1, 0]]
    assert likeliest_wrong_classes(nn.Identity(), logits, y, 1).tolist() == [[2], [3]]


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"targets": 0}, {"restarts": 0}])
def test_what_is_no_attack_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="is no attack"):
        replace(ATTACK, **wrong)
