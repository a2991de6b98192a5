"""The quick measurement against a linear model whose worst case is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from compressor.core.types import Threat
from compressor.evaluation.quick import measure

CPU = torch.device("cpu")


class Brightness(nn.Module):
    """Two classes by mean brightness; an attack of eps moves the mean by exactly eps."""

    def forward(self, x: Tensor) -> Tensor:
        lead = 100 * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([-lead, lead], dim=1)


def test_counts_equal_the_closed_form() -> None:
    levels = torch.arange(0, 256, 5, dtype=torch.uint8)
    images = levels.view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    labels = (levels > 127).long()
    labels[0] = 1  # one image that is wrong from the start
    found = measure(Brightness(), images, labels, Threat("Linf", "0.1"), steps=10, seed=0, device=CPU, batch_size=20)
    distance = (levels.double() / 255 - 0.5).abs()
    assert found.samples == 52
    assert found.clean_correct == 51
    assert found.robust_correct == int((distance[1:] > 0.1).sum())
    assert found.robust == found.robust_correct / 52


def test_entropy_is_in_nats_and_survives_underflow() -> None:
    class Constant(nn.Module):
        def __init__(self, logits: list[float]) -> None:
            super().__init__()
            self.logits = torch.tensor(logits)

        def forward(self, x: Tensor) -> Tensor:
            return self.logits.expand(len(x), -1) + 0 * x.sum((1, 2, 3)).unsqueeze(1)

    images, labels = torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    arguments = {"steps": 1, "seed": 0, "device": CPU}
    flat = measure(Constant([0.0, 0.0, 0.0]), images, labels, Threat(), **arguments)
    sure = measure(Constant([1000.0, 0.0, 0.0]), images, labels, Threat(), **arguments)
    assert flat.entropy == pytest.approx(math.log(3))
    assert sure.entropy == 0.0


def test_the_model_is_left_in_its_mode_and_a_stop_is_heard() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), Brightness()).train()
    images, labels = torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(model, images, labels, Threat(), steps=1, seed=0, device=CPU, on_batch=stop)
    assert all(module.training for module in model.modules())
    assert torch.equal(model[0].running_mean, torch.zeros(3))
