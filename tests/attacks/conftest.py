"""Real digits and a linear classifier on them, whose breakable images are known without any attack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from compressor.core.types import Threat


@dataclass(frozen=True)
class LinearCase:
    """Digits ``[N, 1, 8, 8]`` that a linear model mostly gets right."""

    model: nn.Module
    x: Tensor
    y: Tensor

    def breakable(self, threat: Threat) -> np.ndarray:
        """Exactly the images with an error inside the Linf ball and [0, 1], in float64: logits are linear, the box
        separable, so the best attack towards each class is a corner."""
        assert threat.norm == "Linf"
        weight, bias = (p.detach().double().numpy() for p in self.model[1].parameters())
        pixels = self.x.double().flatten(1).numpy()
        wrong = np.zeros(len(pixels), dtype=bool)
        for i, (image, label) in enumerate(zip(pixels, self.y.tolist(), strict=True)):
            for other in range(len(bias)):
                direction = weight[other] - weight[label]
                best = (image + threat.radius * np.sign(direction)).clip(0, 1)
                wrong[i] |= other != label and best @ direction + bias[other] - bias[label] > 0
        return wrong


@pytest.fixture(scope="session")
def linear_digits() -> LinearCase:
    digits = load_digits()
    x = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)
    y = torch.tensor(digits.target)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[:1000]), y[:1000]).backward()
        optimizer.step()
    optimizer.zero_grad()
    return LinearCase(model.eval(), x[1000:1300], y[1000:1300])
