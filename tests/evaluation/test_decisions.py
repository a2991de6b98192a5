"""The model judges every image that an attack returned; what lies outside the ball never counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.core.contracts import AttackResult
from compressor.core.errors import ClassMismatchError
from compressor.core.types import Threat
from compressor.evaluation.decisions import judge
from compressor.evaluation.evaluate import evaluate
from compressor.evaluation.store import NO_CLASS
from compressor.evaluation.suites import Suite

LINF = Threat("Linf", "0.1")


class Brightness(nn.Module):
    """Class 1 where the mean is above a half, and logits that are no numbers where the first pixel is 0."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        logits = torch.stack([0.5 - mean, mean - 0.5], dim=1)
        return torch.where((x[:, 0, 0, 0] == 0).unsqueeze(1), torch.nan, logits)


def pictures(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()


@pytest.mark.parametrize(
    ("returned", "broken", "outside", "said"),
    [
        (0.45, False, False, 0),
        (0.54, True, False, 1),
        (0.5501, False, True, 0),  # beyond the radius: it would break
        (0.3, False, True, 0),  # beyond the radius: it would not
        (float("nan"), False, True, 0),
        (float("inf"), False, True, 0),
    ],
)
def test_only_what_lies_in_the_ball_counts(returned: float, broken: bool, outside: bool, said: int) -> None:
    outcome = judge(Brightness(), pictures(0.45), torch.tensor([0]), pictures(returned), LINF)
    assert (outcome.broken.item(), outcome.outside.item(), outcome.predictions.item()) == (broken, outside, said)
    assert len(outcome.adversarial) == broken


def test_the_range_is_part_of_the_ball() -> None:
    outcome = judge(Brightness(), pictures(0.95, 0.05), torch.tensor([0, 1]), pictures(1.01, -0.01), LINF)
    assert outcome.outside.all()


def test_logits_that_are_not_finite_are_an_error_and_no_class() -> None:
    outcome = judge(Brightness(), pictures(0.05), torch.tensor([0]), pictures(0.0), LINF)
    assert (outcome.broken.item(), outcome.predictions.item()) == (True, NO_CLASS)


def test_the_mode_is_put_back_and_a_label_needs_a_logit() -> None:
    model = Brightness().train()
    judge(model, pictures(0.4), torch.tensor([0]), pictures(0.4), LINF)
    assert model.training
    with pytest.raises(ClassMismatchError, match="2 classes, and a label is 2"):
        judge(model, pictures(0.4), torch.tensor([2]), pictures(0.4), LINF)


class Cheat:
    """Says of every image that it broke, and returns one from outside the ball for those that are easily broken."""

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, generator: torch.Generator
    ) -> AttackResult:
        return AttackResult(1 - x, torch.ones(len(x), dtype=torch.bool))


def test_an_attack_that_cheats_breaks_nothing_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Suite, "attacks", property(lambda _: (("cheat", Cheat()), ("again", Cheat()))))
    images = np.random.default_rng(0).integers(1, 256, (30, 1, 2, 2), dtype=np.uint8)
    labels: Any = (images.mean((1, 2, 3)) > 127.5).astype(np.int64)
    report = evaluate(Brightness(), images, labels, LINF, Suite("t", 1, "", ()), seed=0, batch_size=7, soundness=False)
    inside = (np.abs(1 - 2 * images / 255) <= 0.1).all((1, 2, 3))
    assert not inside.any()
    assert report.clean.all()
    assert report.robust.all()
    assert report.outside == {"cheat": 30, "again": 30}
    assert report.to_json()["outside"] == {"cheat": 30, "again": 30}
