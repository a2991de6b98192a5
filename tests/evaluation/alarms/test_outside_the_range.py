from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from compressor.evaluation.alarms.outside_the_range import CHECK


def test_images_outside_ring_with_the_attack_that_made_them(robust: nn.Module, examine: Any) -> None:
    plain = examine(robust)
    outside = {"FGSM": 0, "PGD-10": 3}
    assert CHECK(examine(robust, report=replace(plain.report, outside=outside))) == (
        "images outside the ball, outside [0, 1] or not finite: PGD-10 3"
    )


def test_none_outside_stays_silent(robust: nn.Module, examine: Any) -> None:
    plain = examine(robust)
    assert CHECK(plain) is None
    assert CHECK(examine(robust, report=replace(plain.report, outside={"FGSM": 0}))) is None
