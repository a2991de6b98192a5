from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.core.types import Threat
from compressor.evaluation.alarms.more_steps_weaker import CHECK
from compressor.evaluation.suites import Suite, SuiteColumn

FAR = SuiteColumn("far", "fgsm")
SHORT = SuiteColumn("short", "pgd-sat", {"steps": 3, "step_size": "0.01eps", "start": "none"})
LONE = Suite("lone", 1, "", (FAR,))


def test_steps_that_are_too_short_ring_with_their_counts(robust: nn.Module, examine: Any) -> None:
    examined = examine(robust, suite=Suite("t", 1, "", (FAR, SHORT)))
    bits = examined.report.attacks
    excess = int(bits["short"].sum() - bits["far"].sum())
    assert excess > 10
    assert CHECK(examined) == f"far (1 steps) broke {excess} images more than short (3 steps)"


def test_another_loss_and_a_cascade_are_not_compared(robust: nn.Module, examine: Any) -> None:
    margin = SuiteColumn("short", "cw-inf", {"steps": 3, "step_size": "0.01eps", "start": "none"})
    assert CHECK(examine(robust, suite=Suite("t", 1, "", (FAR, margin)))) is None
    pair = examine(robust, suite=Suite("t", 1, "", (FAR, SHORT)))
    assert CHECK(pair) is not None
    assert CHECK(replace(pair, report=replace(pair.report, mode="cascade"))) is None


@pytest.mark.parametrize(("alone_few", "alone_many", "rings"), [(9, 0, False), (10, 0, True), (60, 50, False)])
def test_chance_is_allowed(robust: nn.Module, examine: Any, alone_few: int, alone_many: int, rings: bool) -> None:
    suite = Suite("t", 1, "", (FAR, SHORT))
    plain = examine(robust, suite=suite)
    few, many = np.ones((2, 1000), dtype=bool)
    few[:alone_few] = False
    many[500 : 500 + alone_many] = False
    report = replace(plain.report, clean=np.ones(1000, dtype=bool), attacks={"far": few, "short": many})
    assert (CHECK(replace(plain, report=report)) is not None) == rings


class OnTheGrid(torch.autograd.Function):
    """Passes the gradient only where every pixel is a whole number of 255ths, as natural pictures are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        levels = 255 * x
        ctx.on = ((levels - levels.round()).abs() < 1e-3).flatten(1).all(1)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * ctx.on.view(-1, 1, 1, 1)


class Decoy(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(OnTheGrid.apply(x))
        return logits


def test_a_lone_column_is_held_against_a_ladder(robust: nn.Module, examine: Any) -> None:
    # Gradients vanish one step away from a natural picture, so only the first step knows where to go.
    found = CHECK(examine(Decoy(robust), suite=LONE, threat=Threat("Linf", "0.15")))
    assert found is not None
    assert found.startswith("PGD with 1 step(s) broke ")
    assert found.endswith("on the sample")


@pytest.mark.parametrize("threat", [Threat("Linf", "0.1"), Threat("Linf", "0.03"), Threat("L2", "0.5")], ids=str)
@pytest.mark.parametrize("suite", [None, LONE], ids=["quick", "a ladder"])
def test_healthy_models_stay_silent(
    healthy: dict[str, nn.Module], examine: Any, threat: Threat, suite: Suite | None
) -> None:
    assert [CHECK(examine(model, threat=threat, suite=suite)) for model in healthy.values()] == [None] * 5


def test_a_constant_model_stays_silent(constant: nn.Module, examine: Any) -> None:
    assert CHECK(examine(constant, suite=LONE)) is None
