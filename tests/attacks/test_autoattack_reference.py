"""Oracle: a plain run of the library, image by image, under the same seed."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from pyautoattack import AutoAttack
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor, nn

from compressor.attacks._library import LibraryModel, make_adversary
from compressor.core.registry import ATTACKS
from compressor.core.types import Threat
from compressor.numerics.randomness import make_generator

ATTACK = ATTACKS.get("autoattack-reference")
THREATS = [Threat("Linf", "0.04"), Threat("L2", "0.3")]


def test_its_defaults_are_the_standard_version(linear_digits: Any) -> None:
    standard = AutoAttack(linear_digits.model, eps=0.04, norm="Linf", seed=0, version="standard")
    ours = make_adversary(linear_digits.model, THREATS[0], 0, torch.device("cpu"), attacks=ATTACK.attacks)
    assert ours.attacks_to_run == standard.attacks_to_run
    for part in ("apgd", "apgd_targeted", "fab", "square"):
        mine, theirs = vars(getattr(ours, part)), vars(getattr(standard, part))
        ignored = {"model", "predict", "logger", "device"}
        assert {k: v for k, v in mine.items() if k not in ignored} == {
            k: v for k, v in theirs.items() if k not in ignored
        }
    assert (ATTACK.steps, ATTACK.targets, ATTACK.queries) == (100, 9, 5000)
    assert ATTACK.is_reference


def plain_run(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, seed: int, **settings: int) -> tuple[Tensor, Any]:
    """What a user of the library does; with settings, the same with fewer iterations."""
    plain = AutoAttack(model, eps=threat.radius, norm=threat.norm, seed=seed, version="standard")
    if settings:
        common = {"n_iter": settings["steps"], "eps": threat.radius, "norm": threat.norm, "seed": seed, "device": "cpu"}
        plain.apgd = APGDAttack(model, n_restarts=1, **common)
        plain.apgd_targeted = APGDAttack_targeted(model, n_restarts=1, n_target_classes=settings["targets"], **common)
        plain.fab.n_iter, plain.fab.n_target_classes = settings["steps"], settings["targets"]
        plain.square.n_queries = settings["queries"]
    with torch.random.fork_rng():
        x_adv, y_adv = plain.run_standard_evaluation(x, y, batch_size=len(x))
    return x_adv, y_adv != y


@pytest.mark.parametrize(
    ("threat", "settings"),
    [(THREATS[0], {}), (THREATS[1], {"steps": 12, "targets": 3, "queries": 60})],
    ids=["standard", "L2, fewer iterations"],
)
def test_it_finds_what_a_plain_run_of_the_library_finds(
    linear_digits: Any, threat: Threat, settings: dict[str, int]
) -> None:
    model, x, y = linear_digits.model, linear_digits.x[:30], linear_digits.y[:30]
    ours = replace(ATTACK, **settings)(model, x, y, threat, torch.Generator().manual_seed(11))
    x_adv, broken = plain_run(model, x, y, threat, 11, **settings)
    assert 0 < int(ours.broken.sum()) < len(x)
    assert torch.equal(ours.broken, broken)
    torch.testing.assert_close(ours.x_adv, x_adv, atol=1e-6, rtol=0)


@pytest.mark.parametrize("classes", [2, 3])
def test_below_four_classes_targets_are_attacked_by_the_margin(classes: int) -> None:
    logits = torch.randn(6, classes, generator=make_generator(0))
    y = logits.argmax(1)
    adversary = make_adversary(nn.Identity(), THREATS[0], 0, torch.device("cpu"), attacks=["apgd-t"], classes=classes)
    attack = adversary.apgd_targeted
    attack.y_target = (y + 1) % classes
    expected = [float(row[(label + 1) % classes] - row[label]) for row, label in zip(logits, y.tolist(), strict=True)]
    torch.testing.assert_close(attack.dlr_loss_targeted(logits, y), torch.tensor(expected))
    assert attack.n_target_classes == adversary.fab.n_target_classes == classes - 1


def test_gradients_reach_the_library_contiguous() -> None:
    class Turned(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.is_contiguous()
            return x.contiguous(memory_format=torch.channels_last).relu().sum(dim=(2, 3))

    x = torch.rand(2, 3, 4, 4, requires_grad=True)
    bare = torch.autograd.grad((Turned()(x) ** 2).sum(), x)[0]
    wrapped = torch.autograd.grad((LibraryModel(Turned())(x) ** 2).sum(), x)[0]
    assert wrapped.is_contiguous()
    torch.testing.assert_close(wrapped, bare.contiguous())


def test_the_trace_function_of_debuggers_and_coverage_comes_back(linear_digits: Any) -> None:
    def trace(frame: Any, event: str, argument: Any) -> None:
        return None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        replace(ATTACK, attacks=("apgd-ce",), steps=1)(
            linear_digits.model, linear_digits.x[:2], linear_digits.y[:2], THREATS[0], make_generator(0)
        )
        after = sys.gettrace()
    finally:
        sys.settrace(before)
    assert after is trace
