"""Real digits, healthy models of them, and an evaluation of any model, ready to be examined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from compressor.core.types import Threat
from compressor.evaluation.alarms._contract import ExaminedEvaluation
from compressor.evaluation.report import Report
from compressor.evaluation.suites import Suite, get_suite
from compressor.numerics.randomness import make_generator
from compressor.numerics.sampling import balanced_indices

TRAINED_ON = 1000
THREAT = Threat("Linf", "0.1")


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """uint8 ``[N, 1, 8, 8]`` and labels ``[N]``."""
    data = load_digits()
    return np.round(data.images / 16 * 255).astype(np.uint8)[:, None], data.target.astype(np.int64)


def to_tensors(images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(images.astype(np.float32) / np.float32(255)), torch.from_numpy(labels)


def train(model: nn.Module, x: Tensor, y: Tensor, seed: int, eps: float) -> nn.Module:
    """A few steps of FGSM training from a random start; natural training where eps is 0."""
    generator = make_generator("healthy", seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(40):
        rows = torch.randperm(len(x), generator=generator)[:256]
        natural, labels = x[rows], y[rows]
        start = (natural + eps * (2 * torch.rand(natural.shape, generator=generator) - 1)).clamp(0, 1)
        start.requires_grad_()
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(start), labels), start)
        moved = (start.detach() + eps * gradient.sign()).clamp(0, 1)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(moved.clamp(natural - eps, natural + eps)), labels).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.eval()


def make_network(seed: int) -> nn.Module:
    layers = [
        *(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU()),
        *(nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(384, 10)),
    ]
    generator = make_generator("weights", seed)
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_in = layer.weight[0].numel()
            with torch.no_grad():
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * (2 / fan_in) ** 0.5)
                layer.bias.zero_()
    return nn.Sequential(*layers)


@pytest.fixture(scope="session")
def healthy(digits: Any) -> dict[str, nn.Module]:
    """Models that hide nothing: linear, trained naturally, and trained against attacks, with several seeds."""
    x, y = to_tensors(digits[0][:TRAINED_ON], digits[1][:TRAINED_ON])
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    for parameter in linear.parameters():
        nn.init.zeros_(parameter)
    models = {"linear": train(linear, x, y, 0, 0.0), "natural": train(make_network(0), x, y, 0, 0.0)}
    return models | {f"robust {seed}": train(make_network(seed), x, y, seed, 0.1) for seed in range(3)}


@pytest.fixture(scope="session")
def robust(healthy: dict[str, nn.Module]) -> nn.Module:
    """One of the healthy models: BatchNorm network, trained against attacks; masks are put on it."""
    return healthy["robust 0"]


@pytest.fixture(scope="session")
def held_out(digits: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """300 digits that no model was trained on."""
    return digits[0][TRAINED_ON : TRAINED_ON + 300], digits[1][TRAINED_ON : TRAINED_ON + 300]


@pytest.fixture(scope="session")
def attack(held_out: Any) -> Callable[..., Report]:
    """Runs a suite on the held-out digits."""

    def run(model: nn.Module, *, threat: Threat = THREAT, suite: Suite | None = None, seed: int = 0) -> Report:
        suite = suite or get_suite("quick")
        x, y = to_tensors(*held_out)
        with torch.no_grad():
            clean = (model(x).argmax(1) == y).numpy()
        bits = {
            name: clean & ~search(model, x, y, threat, make_generator(seed, name)).broken.numpy()
            for name, search in suite.attacks
        }
        return Report(threat, str(suite), seed, "alone", clean, bits)

    return run


@pytest.fixture(scope="session")
def examine(held_out: Any, attack: Callable[..., Report]) -> Callable[..., ExaminedEvaluation]:
    """What the checks are shown of a model after an attack on the held-out digits; fields by name replace its own."""

    known: dict[Any, Report] = {}

    def make(model: nn.Module, *, threat: Threat = THREAT, suite: Suite | None = None,
             report: Report | None = None, **changes: Any) -> ExaminedEvaluation:  # fmt: skip
        suite = suite or get_suite("quick")
        index = balanced_indices(held_out[1], 64, 0)
        x, y = to_tensors(held_out[0][index], held_out[1][index])
        if report is None:
            key = (model, threat, suite)
            if key not in known:
                known[key] = attack(model, threat=threat, suite=suite)
            report = known[key]
        return replace(ExaminedEvaluation(model, model, x, y, index, threat, suite, report, 0, 50), **changes)

    return make


class Behind(nn.Module):
    """A model whose logits something happens to."""

    def __init__(self, model: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.change = model, change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.model(x))


@pytest.fixture(scope="session")
def behind() -> type[Behind]:
    """See above: ``behind(model, change)``."""
    return Behind


@pytest.fixture(scope="session")
def constant(robust: nn.Module) -> nn.Module:
    """Gives every picture the class 9."""
    return Behind(robust, lambda logits: 0 * logits + torch.arange(10.0))
