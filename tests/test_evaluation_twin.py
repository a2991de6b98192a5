"""Evaluations attack a model's frozen twin; what they record is the model's own."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor import evaluation
from compressor.classifier import build_classifier
from compressor.evaluation import evaluate
from compressor.frozen import FrozenTwin
from compressor.suites import Column, Suite
from compressor.types import ModelSpec, Threat

THREAT = Threat("Linf", "0.005")
SAMPLE = 8  # images that a twin is checked with
GRADIENT = Suite("t", 1, "", (Column("FGSM", "fgsm"), Column("PGD", "pgd-sat", {"steps": 4, "decide": "first"})))
LIBRARY = Suite(
    "t", 1, "",
    (
        Column("APGD", "autoattack", {"attacks": ("apgd-ce", "fab-t"), "steps": 3, "targets": 2}),
        Column("Square", "square", {"queries": 20}),
    ),
)  # fmt: skip


@pytest.fixture
def model() -> nn.Module:
    """A small convolutional network with fresh weights, BatchNorm that has seen images, and no favourite class."""
    built = build_classifier(ModelSpec("dm-wideresnet-10-1", 4, image_size=16), seed=0).train()
    x = torch.rand(32, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(20):
            built(x)
        last = [module for module in built.eval().modules() if isinstance(module, nn.Linear)][-1]
        last.bias -= built(x).mean(0)
    return built


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (20, 3, 16, 16), dtype=np.uint8)


@pytest.fixture
def labels(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """The model's own answers, but for two images that it gets wrong."""
    with torch.no_grad():
        answers = model(torch.from_numpy(images).float() / 255).argmax(1).numpy()
    answers[:2] = (answers[:2] + 1) % 4
    return answers


def seen_by(module: nn.Module) -> list[tuple[int, bool]]:
    """Records how many images each forward pass brings, and whether a gradient is wanted."""
    calls: list[tuple[int, bool]] = []
    module.register_forward_pre_hook(lambda _, inputs: calls.append((len(inputs[0]), inputs[0].requires_grad)))
    return calls


@pytest.mark.parametrize("suite", [GRADIENT, LIBRARY], ids=["gradient", "library"])
def test_the_twin_is_differentiated_and_the_model_judges(
    suite: Suite, model: nn.Module, images: np.ndarray, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[nn.Module] = []

    def twin_or_itself(model: nn.Module, sample: Tensor) -> nn.Module:
        made.append(FrozenTwin(model, sample))
        return made[-1]

    monkeypatch.setattr(evaluation, "twin_or_itself", twin_or_itself)
    calls = seen_by(model)
    report = evaluate(model, images, labels, THREAT, suite, seed=0, batch_size=8)
    (twin,) = made
    assert isinstance(twin, FrozenTwin)
    assert twin.folded
    assert not any(wants_gradient for _, wants_gradient in calls)
    assert report.clean.sum() == 18
    assert 0 < min(bits.sum() for bits in report.attacks.values()) < 18


def test_both_ways_give_the_same_bits(
    model: nn.Module, images: np.ndarray, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_twin = evaluate(model, images, labels, THREAT, GRADIENT, seed=0, batch_size=8)
    monkeypatch.setattr(evaluation, "twin_or_itself", lambda model, sample: model)
    by_model = evaluate(model, images, labels, THREAT, GRADIENT, seed=0, batch_size=8)
    for name, bits in by_model.attacks.items():
        np.testing.assert_array_equal(by_twin.attacks[name], bits)


class Gullible(FrozenTwin):
    """A twin that errs on every image: all that an attack on it finds is nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return -super().forward(x)


def test_where_only_the_twin_falls_the_model_is_attacked(
    model: nn.Module, images: np.ndarray, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    honest = evaluate(model, images, labels, THREAT, GRADIENT, seed=0, batch_size=32)
    monkeypatch.setattr(evaluation, "twin_or_itself", Gullible)
    with caplog.at_level(logging.INFO, "compressor.evaluation"):
        report = evaluate(model, images, labels, THREAT, GRADIENT, seed=0, batch_size=32)
    # FGSM draws nothing, so that the second attack is the honest one.
    np.testing.assert_array_equal(report.attacks["FGSM"], honest.attacks["FGSM"])
    assert honest.attacks["FGSM"].sum() < honest.clean.sum()
    assert report.attacks["PGD"].sum() < report.clean.sum()
    assert [record.getMessage() for record in caplog.records] == [
        f"{name}: 18 image(s) break the frozen twin alone; attacking the model itself" for name in ("FGSM", "PGD")
    ]


def test_the_models_word_counts_where_the_twin_still_stands(
    model: nn.Module, images: np.ndarray, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin is sure of every label by a margin that no step of this attack takes away; its gradients are honest."""
    honest = evaluate(model, images, labels, THREAT, GRADIENT, seed=0, batch_size=32)
    x = torch.from_numpy(images).float() / 255
    targets = torch.from_numpy(labels)

    class Sure(FrozenTwin):
        def forward(self, x_adv: Tensor) -> Tensor:
            nearest = torch.cdist(x_adv.detach().flatten(1), x.flatten(1)).argmin(1)
            bonus = 2.0 * nn.functional.one_hot(targets[nearest], 4)
            return super().forward(x_adv) + bonus

    monkeypatch.setattr(evaluation, "twin_or_itself", Sure)
    report = evaluate(model, images, labels, THREAT, GRADIENT, seed=0, batch_size=32)
    assert honest.attacks["FGSM"].sum() < honest.clean.sum()
    for bits in report.attacks.values():
        assert bits.sum() < report.clean.sum()


@pytest.mark.parametrize("chunk", [None, 3])
def test_judging_takes_a_chunk_at_a_time(
    chunk: int | None, model: nn.Module, images: np.ndarray, labels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twin_or_itself(model: nn.Module, sample: Tensor) -> nn.Module:
        twin = FrozenTwin(model, sample)
        twin.chunk = chunk
        return twin

    monkeypatch.setattr(evaluation, "twin_or_itself", twin_or_itself)
    calls = seen_by(model)
    evaluate(model, images, labels, THREAT, GRADIENT, seed=0, batch_size=9)
    assert max(size for size, _ in calls if size != SAMPLE) == (chunk or 9)


def test_what_has_no_parameters_is_attacked_as_it_is(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> None:
    """A module that hands on to a session decides elsewhere, and its gradients are of its own making."""

    class HandingOn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[tuple[int, bool]] = []

        def forward(self, x: Tensor) -> Tensor:
            self.calls.append((len(x), x.requires_grad))
            return model(x)

    handing_on = HandingOn()
    report = evaluate(handing_on, images, labels, THREAT, GRADIENT, seed=0, batch_size=20)
    # Natural; FGSM: natural, gradient, verdict; PGD: the same with up to 4 gradients. Whole batches, nothing twice.
    assert handing_on.calls[:4] == [(20, False), (18, False), (18, True), (18, False)]
    assert len(handing_on.calls) <= 10
    assert report.attacks["FGSM"].sum() < 18
