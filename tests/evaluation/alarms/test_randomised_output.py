from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.evaluation.alarms.randomised_output import CHECK


class Noisy(nn.Module):
    def __init__(self, model: nn.Module, scale: float) -> None:
        super().__init__()
        self.model, self.scale, self.generator = model, scale, torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits + self.scale * torch.randn(logits.shape, generator=self.generator)


@pytest.mark.parametrize("scale", [0.01, 1.0])
def test_noise_on_the_logits_rings(robust: nn.Module, examine: Any, scale: float) -> None:
    assert CHECK(examine(Noisy(robust, scale))) == "64 of 64 images get other logits when they are asked for again"


def test_noise_in_few_images_rings(robust: nn.Module, examine: Any) -> None:
    class Sometimes(Noisy):
        def forward(self, x: Tensor) -> Tensor:
            seldom = torch.arange(len(x)) == 3
            return torch.where(seldom[:, None], super().forward(x), self.model(x))

    found = CHECK(examine(Sometimes(robust, 1.0)))
    assert found is not None
    assert found.startswith("2 of 64")  # the fourth of each batch of 50 and 14


def test_the_last_bit_of_a_kernel_does_not_ring(robust: nn.Module, examine: Any) -> None:
    assert CHECK(examine(Noisy(robust, 1e-6))) is None


def test_healthy_models_stay_silent(healthy: dict[str, nn.Module], constant: nn.Module, examine: Any) -> None:
    assert [CHECK(examine(model)) for model in (*healthy.values(), constant)] == [None] * 6
