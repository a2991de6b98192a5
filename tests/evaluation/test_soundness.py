"""All checks together: what they say of healthy models and of masked ones, and that they leave no trace."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from compressor.core.registry import ALARMS
from compressor.core.types import Threat
from compressor.evaluation import soundness
from compressor.evaluation.report import Report
from compressor.evaluation.soundness import SAMPLE, check_soundness
from compressor.evaluation.suites import Suite, SuiteColumn, get_suite
from compressor.frozen import surrogate_of
from compressor.numerics.randomness import make_generator

THREAT = Threat("Linf", "0.1")
QUICK = get_suite("quick")
LONE = Suite("lone", 1, "", (SuiteColumn("FGSM", "fgsm"),))


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    data = load_digits()
    return np.round(data.images / 16 * 255).astype(np.uint8)[:, None], data.target.astype(np.int64)


@pytest.fixture(scope="module")
def robust(digits: Any) -> nn.Module:
    """A small convolutional network after a few steps of training on noise and FGSM's images."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU()),
        *(nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(384, 10)),
    )
    x, y = to_float(digits[0][:1000]), torch.from_numpy(digits[1][:1000])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(40):
        rows = torch.randperm(1000)[:256]
        start = (x[rows] + 0.2 * torch.rand(256, 1, 8, 8) - 0.1).clamp(0, 1).requires_grad_()
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(start), y[rows]), start)
        moved = (start.detach() + 0.1 * gradient.sign()).clamp(x[rows] - 0.1, x[rows] + 0.1).clamp(0, 1)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(moved), y[rows]).backward()
        optimizer.step()
    return model.eval()


class Masked(nn.Module):
    """A model whose logits something happens to, and who counts the images it is asked about."""

    def __init__(self, model: nn.Module, change: Any = lambda logits: logits) -> None:
        super().__init__()
        self.model, self.change, self.images = model, change, 0

    def forward(self, x: Tensor) -> Tensor:
        # A backward pass counts as two forward passes, whether it follows or not.
        self.images += 3 * len(x) if x.requires_grad else len(x)
        logits: Tensor = self.change(self.model(x))
        return logits


def to_float(images: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(images.astype(np.float32) / np.float32(255))


def attacked(model: nn.Module, images: Any, labels: Any, suite: Suite, threat: Threat = THREAT) -> Report:
    x, y = to_float(images), torch.from_numpy(labels)
    with torch.no_grad():
        clean = (model(x).argmax(1) == y).numpy()
    bits = {
        name: clean & ~search(model, x, y, threat, make_generator(0, name)).broken.numpy()
        for name, search in suite.attacks
    }
    return Report(threat, str(suite), 0, "alone", clean, bits)


def check(
    model: nn.Module, digits: Any, suite: Suite = QUICK, *, threat: Threat = THREAT, surrogate: nn.Module | None = None,
    report: Report | None = None, seed: int = 0, batch_size: int = 128,
) -> list[str]:  # fmt: skip
    images, labels = digits[0][1000:1300], digits[1][1000:1300]
    examined = replace(report or attacked(model, images, labels, suite, threat), threat=threat, seed=seed)
    found = check_soundness(
        model, surrogate or model, images, labels, suite, examined, device="cpu", batch_size=batch_size
    )
    assert all(alarm.detail and alarm.meaning.endswith(".") for alarm in found)
    return [alarm.name for alarm in found]


@pytest.mark.parametrize("suite", [QUICK, LONE], ids=str)
@pytest.mark.parametrize("threat", [THREAT, Threat("L2", "0.5")], ids=str)
def test_a_healthy_model_is_left_alone(robust: nn.Module, digits: Any, suite: Suite, threat: Threat) -> None:
    report = attacked(robust, digits[0][1000:1300], digits[1][1000:1300], suite, threat)
    assert 0.4 < report.robust_accuracy < report.clean_accuracy
    surrogate = surrogate_of(robust, to_float(digits[0][:8]))
    for seed in range(3):
        assert check(robust, digits, suite, threat=threat, report=report, seed=seed) == []
        assert check(robust, digits, suite, threat=threat, report=report, seed=seed, surrogate=surrogate) == []


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (lambda logits: 1e4 * logits, ["zero-gradients"]),
        (torch.round, ["half-range", "square-beats-white-box", "zero-gradients"]),
        (lambda logits: logits.softmax(1), ["softmax-output"]),
        (lambda logits: logits + 0.1 * torch.rand(logits.shape), ["randomised-output"]),
        (lambda logits: logits - logits.mean(0), ["batch-dependence"]),
        (lambda logits: 0 * logits + torch.arange(10.0), []),
    ],
    ids=["scaled by 1e4", "rounded", "softmax", "random", "centred over the batch", "constant"],
)
def test_each_way_of_hiding_rings_by_its_name(robust: nn.Module, digits: Any, change: Any, names: list[str]) -> None:
    torch.manual_seed(0)
    assert check(Masked(robust, change), digits) == names


def test_the_model_is_put_into_eval_mode_and_left_as_it_was(robust: nn.Module, digits: Any) -> None:
    model = copy.deepcopy(robust)
    report = attacked(model, digits[0][1000:1300], digits[1][1000:1300], QUICK)
    model.train()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert check(model, digits, report=report) == []
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_equal_arguments_give_equal_findings_and_draw_no_global_number(robust: nn.Module, digits: Any) -> None:
    model = Masked(robust, torch.round)
    images, labels = digits[0][1000:1300], digits[1][1000:1300]
    report = attacked(model, images, labels, QUICK)
    state = torch.get_rng_state()
    first, second = (
        check_soundness(model, model, images, labels, QUICK, replace(report, seed=1), device="cpu", batch_size=32)
        for _ in range(2)
    )
    assert first == second != ()
    assert torch.equal(torch.get_rng_state(), state)


def test_a_mapped_file_and_few_images_will_do(robust: nn.Module, digits: Any, tmp_path: Path) -> None:
    images, labels = digits[0][1000:1005], digits[1][1000:1005]
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    for count in (1, 5):
        report = attacked(robust, images[:count], labels[:count], QUICK)
        arguments = (labels[:count], QUICK, report)
        found = check_soundness(robust, robust, mapped[:count], *arguments, device="cpu", batch_size=2)
        assert found == ()


def test_the_sample_is_small_and_even_over_the_classes(
    robust: nn.Module, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = attacked(robust, digits[0][1000:1300], digits[1][1000:1300], LONE)
    seen: list[Any] = []
    monkeypatch.setattr(soundness, "ExaminedEvaluation", lambda *values: seen.append(values))
    monkeypatch.setattr(type(ALARMS), "members", lambda self: {})
    check(robust, digits, report=report)
    _, _, x, y, index, *_ = seen[0]
    assert len(x) == SAMPLE == 64
    assert np.ptp(np.bincount(y.numpy(), minlength=10)) == 1
    assert torch.equal(x, to_float(digits[0][1000:1300][index]))
    assert np.array_equal(y.numpy(), digits[1][1000:1300][index])


@pytest.mark.parametrize(("suite", "most"), [(QUICK, 12_000), (LONE, 16_000)], ids=str)
def test_what_it_costs_is_what_it_says(robust: nn.Module, digits: Any, suite: Suite, most: int) -> None:
    model = Masked(robust)
    report = attacked(model, digits[0][1000:1300], digits[1][1000:1300], suite, Threat("Linf", "0.001"))
    assert report.robust_accuracy == report.clean_accuracy, "no image falls, so this is the most that it can cost"
    model.images = 0
    assert check(model, digits, suite, threat=Threat("Linf", "0.001"), report=report) == []
    assert most - 3000 < model.images < most


def undertrained(kind: str, steps: int, eps: float, seed: int, x: Tensor, y: Tensor) -> nn.Module:
    """A small network after a few steps, perhaps none; eps above 0 trains on FGSM's images."""
    torch.manual_seed(seed)
    wide = (nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8))
    model = nn.Sequential(
        *{
            "mlp": (nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)),
            "pooled": (*wide, nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)),
            "hardswish": (*wide, nn.Hardswish(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10)),
        }[kind]
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        rows = torch.randperm(len(x))[:128]
        start = x[rows].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(start), y[rows]), start)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model((x[rows] + eps * gradient.sign()).clamp(0, 1)), y[rows]).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlp", "pooled", "hardswish"])
@pytest.mark.parametrize("steps", [0, 3, 10, 60, 400])
def test_dull_and_half_trained_models_ring_nothing(digits: Any, kind: str, steps: int) -> None:
    x, y = to_float(digits[0][:1000]), torch.from_numpy(digits[1][:1000])
    for seed, eps in ((0, 0.0), (1, 0.1)):
        model = undertrained(kind, steps, eps, seed, x, y)
        for threat in (THREAT, Threat("Linf", "8/255"), Threat("L2", "1")):
            for suite in (QUICK, LONE):
                assert check(model, digits, suite, threat=threat, seed=seed) == []


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1, 10, 100, 1000])
def test_scaled_logits_ring_before_they_are_worth_it(robust: nn.Module, digits: Any, factor: int) -> None:
    images, labels = digits[0][1000:1300], digits[1][1000:1300]
    honest = attacked(robust, images, labels, QUICK).robust_accuracy
    masked = Masked(robust, lambda logits: factor * logits)
    report = attacked(masked, images, labels, QUICK)
    rang = check(masked, digits, report=report)
    assert rang == (["zero-gradients"] if factor >= 100 else [])
    assert rang or report.robust_accuracy < honest + 0.03
