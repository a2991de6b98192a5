"""Schedules against torch's own, step by step, and the published milestones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from compressor.runs.recipe import Recipe, resolve
from compressor.training.step.schedules import learning_rate_at

STEPS = 1000


def recipe(**settings: object) -> Recipe:
    return resolve("rslad", "mobilenetv2", None, settings)


def rates_of(scheduler: LRScheduler) -> list[float]:
    """The rate at the beginning and after each step."""
    rates = [scheduler.get_last_lr()[0]]
    for _ in range(STEPS - 1):
        scheduler.optimizer.step()
        scheduler.step()
        rates.append(scheduler.get_last_lr()[0])
    return rates


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2, momentum=0.9)


def test_milestones_are_where_the_paper_says() -> None:
    rates = [learning_rate_at(recipe(), epoch) for epoch in (0, 214.999, 215, 259, 260, 285, 299)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.0001, 0.0001])


def test_milestones_move_in_proportion_with_other_epochs() -> None:
    assert [learning_rate_at(recipe(epochs=30), epoch) for epoch in (21.4, 21.5)] == pytest.approx([0.1, 0.01])


def test_cosine_is_torchs() -> None:
    settings = recipe(schedule="cosine", learning_rate=0.2, epochs=50)
    ours = [learning_rate_at(settings, 50 * step / STEPS) for step in range(STEPS)]
    assert ours == pytest.approx(rates_of(CosineAnnealingLR(optimizer(), T_max=STEPS)))


@pytest.mark.parametrize("rise", [0.025, 0.3, 0.8])
def test_one_cycle_is_torchs(rise: float) -> None:
    theirs = rates_of(OneCycleLR(optimizer(), max_lr=0.2, total_steps=STEPS, pct_start=rise))
    # torch counts its steps from the first rate to the last, and ends the rise one step early.
    settings = recipe(
        schedule="one-cycle", learning_rate=0.2, epochs=50, rise_fraction=(rise * STEPS - 1) / (STEPS - 1)
    )
    ours = [learning_rate_at(settings, 50 * step / (STEPS - 1)) for step in range(STEPS)]
    assert ours == pytest.approx(theirs, abs=1e-9)


@given(st.sampled_from(["milestones", "cosine", "one-cycle"]), st.floats(0, 1), st.floats(0, 0.99), st.integers(1, 400))
def test_every_schedule_stays_between_nothing_and_the_largest_rate(
    schedule: str, done: float, rise: float, epochs: int
) -> None:
    settings = recipe(schedule=schedule, rise_fraction=rise, epochs=epochs)
    assert 0 <= learning_rate_at(settings, done * epochs) <= 0.1 + 1e-12


def test_a_cycle_without_a_rise_begins_at_the_top() -> None:
    assert learning_rate_at(recipe(schedule="one-cycle", rise_fraction=0.0), 0) == pytest.approx(0.1)
