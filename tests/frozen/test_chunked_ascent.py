"""An attack on a twin, a few images at once, finds what it finds on all at once: each image's gradient is its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from compressor.core.types import ModelSpec, Threat
from compressor.frozen import FrozenTwin
from compressor.models.classifier import build_classifier
from compressor.numerics.ascent import ascend
from compressor.numerics.losses import cross_entropy
from compressor.numerics.randomness import make_generator

THREAT = Threat("Linf", "8/255")
GOAL = 0.05


@pytest.mark.parametrize("chunk", [1, 3, 7, 32])
def test_chunks_on_a_twin(chunk: int, settled: Any, pictures: Any) -> None:
    model = settled(build_classifier(ModelSpec("mobilenetv2-0.25", 10), seed=0))
    x = pictures(7)
    twin = FrozenTwin(model, x[:2])
    labels = twin(x).detach().argmax(1)
    at = cross_entropy(twin(x).detach(), labels)
    misclassified: set[int] = set()

    def objective(x_adv: Tensor, index: Tensor) -> Tensor:
        gained = cross_entropy(twin(x_adv), labels[index]) - at[index]
        reached = gained > GOAL * index
        misclassified.update(index[reached].tolist())
        return torch.where(reached, torch.inf, gained)

    def run(chunk: int | None) -> Tensor:
        return ascend(objective, x, THREAT, make_generator(0), steps=4, step_size=1 / 255, chunk=chunk)

    whole = run(None)
    assert 0 < len(misclassified) < len(x)
    # A gradient within rounding of zero may change its sign: a few pixels then differ by whole steps.
    assert (run(chunk) - whole).abs().gt(1e-6).double().mean() < 0.01
