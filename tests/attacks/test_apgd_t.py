"""Oracle: a linear model, whose every breakable image some target breaks; the loops are held against the library's in
test_apgd_ce.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack_targeted
from torch import nn

from compressor.attacks._search import likeliest_wrong_classes
from compressor.core.errors import UsageError
from compressor.core.registry import ATTACKS
from compressor.core.types import Threat
from compressor.numerics.randomness import make_generator

ATTACK = ATTACKS.get("apgd-t")
THREAT = Threat("Linf", "0.08")


def test_its_defaults_are_the_authors() -> None:
    assert (ATTACK.steps, ATTACK.targets, ATTACK.restarts) == (100, 9, 1)


@pytest.mark.parametrize("threat", [THREAT, Threat("L2", "0.3")], ids=str)
def test_under_one_seed_it_is_the_library_s_own_run(threat: Threat) -> None:
    """All targets, with the noise that the library draws for those that stand: the same images fall."""
    generator = make_generator(0, "targeted")
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 10)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator)).requires_grad_(False)
    x = torch.rand(60, 1, 8, 8, generator=generator)
    y = model(x).argmax(1)
    library = APGDAttack_targeted(
        model, n_iter=10, n_target_classes=5, eps=threat.radius, norm=threat.norm, seed=7, device="cpu"
    )
    with torch.random.fork_rng(), torch.no_grad():
        expected = library.perturb(x, y)
    found = replace(ATTACK, steps=10, targets=5)(model, x, y, threat, torch.Generator().manual_seed(7))
    assert 0.1 < float(found.broken.float().mean()) < 0.9
    assert torch.equal(found.broken, model(expected).argmax(1) != y)


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
