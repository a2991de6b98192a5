from __future__ import annotations

from typing import Any

import torch

from compressor.attacks._gradient import GradientAttack
from compressor.core.registry import ATTACKS
from compressor.core.types import Threat
from compressor.numerics.losses import cw_margin
from compressor.numerics.randomness import make_generator


def test_it_is_configured_as_the_paper_evaluates() -> None:
    assert ATTACKS.get("cw-inf") == GradientAttack(30, "2/255", "uniform", 1.0, "cw_margin", "last")


def test_it_reaches_a_larger_margin_than_the_cross_entropy_does(linear_digits: Any) -> None:
    model, x, y = linear_digits.model, linear_digits.x, linear_digits.y
    margins = {
        name: cw_margin(model(ATTACKS.get(name)(model, x, y, Threat("Linf", "0.05"), make_generator(0)).x_adv), y)
        for name in ("cw-inf", "pgd-sat")
    }
    assert margins["cw-inf"].mean() > margins["pgd-sat"].mean()


def test_saturated_probabilities_do_not_hide_the_margin(linear_digits: Any) -> None:
    """A model whose softmax has rounded to 0 and 1 gives the cross-entropy no gradient; the margin still has one."""
    sharp = torch.nn.Sequential(linear_digits.model, Sharpen())
    y = sharp(linear_digits.x).argmax(1)
    threat = Threat("Linf", "0.1")
    by_margin = ATTACKS.get("cw-inf")(sharp, linear_digits.x, y, threat, make_generator(0)).broken
    by_cross_entropy = ATTACKS.get("pgd-sat")(sharp, linear_digits.x, y, threat, make_generator(0)).broken
    assert by_margin.sum() > by_cross_entropy.sum()


class Sharpen(torch.nn.Module):
    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return 1e4 * logits
