"""The clock is replaced: what is tested is the choice that it leads to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.frozen import FrozenTwin, choose_precision, precision


class Moody(nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return logits if logits.sum() > 0 else 2 * logits


def model(*last: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), *last)


def clock(monkeypatch: pytest.MonkeyPatch, single: Iterator[float], half: Iterator[float]) -> list[tuple[str, bool]]:
    asked: list[tuple[str, bool]] = []

    def computation(twin: FrozenTwin, sample: Tensor, *, with_gradient: bool) -> tuple[str, bool]:
        return twin.precision, with_gradient

    def seconds(compute: tuple[str, bool], device: torch.device) -> float:
        asked.append(compute)
        return next(single if compute[0] == "fp32" else half)

    monkeypatch.setattr(precision, "_computation", computation)
    monkeypatch.setattr(precision, "_seconds", seconds)
    return asked


@pytest.mark.parametrize(
    ("single", "half", "chosen"),
    [(1.0, 0.5, "bf16"), (1.0, 2.0, "fp32"), (1.0, 1.0, "fp32"), (1.0, 0.95, "fp32"), (1.0, 0.9, "bf16")],
)
def test_bfloat16_must_be_clearly_faster(
    single: float, half: float, chosen: str, pictures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, repeat(single), repeat(half))
    assert choose_precision(model(), pictures(), with_gradient=True) == chosen


def test_a_busy_moment_does_not_decide(pictures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, repeat(1.0), chain([9.0, 9.0, 0.5], repeat(9.0)))
    assert choose_precision(model(), pictures(), with_gradient=True) == "bf16"


@pytest.mark.parametrize("with_gradient", [False, True])
def test_the_two_are_timed_in_turns_at_what_is_wanted(
    with_gradient: bool, pictures: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = clock(monkeypatch, repeat(1.0), repeat(1.0))
    choose_precision(model(), pictures(), with_gradient=with_gradient)
    assert asked[:4] == [("fp32", with_gradient), ("bf16", with_gradient)] * 2


def test_without_folding_there_is_no_choice(pictures: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = clock(monkeypatch, repeat(1.0), repeat(0.1))
    assert choose_precision(model(Moody()), pictures(), with_gradient=True) == "fp32"
    assert asked == []


@pytest.mark.parametrize("with_gradient", [False, True])
def test_the_real_clock_runs_and_leaves_no_gradient(with_gradient: bool, pictures: Any) -> None:
    subject, x = model(), pictures()
    assert choose_precision(subject, x, with_gradient=with_gradient) in ("fp32", "bf16")
    assert not x.requires_grad
    assert all(parameter.grad is None for parameter in subject.parameters())
    assert torch.is_grad_enabled()
