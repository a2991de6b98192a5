from __future__ import annotations

from typing import Any

import torch
from torch import nn

from compressor.evaluation.alarms.softmax_output import CHECK


def test_probabilities_ring(robust: nn.Module, examine: Any, behind: Any) -> None:
    found = CHECK(examine(behind(robust, lambda logits: logits.softmax(1))))
    assert found == "the outputs of all 64 images add up to 1, and none is negative"


def test_what_cross_entropy_may_be_given_stays_silent(robust: nn.Module, examine: Any, behind: Any) -> None:
    assert CHECK(examine(behind(robust, lambda logits: logits.log_softmax(1)))) is None
    assert CHECK(examine(behind(robust, torch.relu))) is None
    # Each image's add up to 1, but some are negative.
    centred = behind(robust, lambda logits: logits - logits.mean(1, keepdim=True) + 0.1)
    assert CHECK(examine(centred)) is None


def test_healthy_models_stay_silent(healthy: dict[str, nn.Module], constant: nn.Module, examine: Any) -> None:
    assert [CHECK(examine(model)) for model in (*healthy.values(), constant)] == [None] * 6
