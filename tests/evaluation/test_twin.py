"""Evaluations attack a model's surrogate; what they record is the model's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.core.types import Threat
from compressor.evaluation.evaluate import evaluate
from compressor.evaluation.report import Report
from compressor.evaluation.suites import Suite, SuiteColumn
from compressor.frozen import FrozenPrecision, FrozenTwin, Surrogate, surrogate_of
from tests.support.networks import network_without_favourite

THREAT = Threat("Linf", "0.005")
SAMPLE = 8  # images that a twin is checked with
GRADIENT = Suite(
    "t", 1, "", (SuiteColumn("FGSM", "fgsm"), SuiteColumn("PGD", "pgd-sat", {"steps": 4, "decide": "first"}))
)
LIBRARY = Suite(
    "t", 1, "",
    (
        SuiteColumn("APGD", "autoattack", {"attacks": ("apgd-ce", "fab-t"), "steps": 3, "targets": 2}),
        SuiteColumn("Square", "square", {"queries": 20}),
    ),
)  # fmt: skip


@pytest.fixture
def model() -> nn.Module:
    return network_without_favourite(4)


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


def attack(model: nn.Module, images: np.ndarray, labels: np.ndarray, **changes: Any) -> Report:
    arguments = {"suite": GRADIENT, "seed": 0, "batch_size": 8, "soundness": False} | changes
    return evaluate(model, images, labels, THREAT, **arguments)


@pytest.mark.parametrize("suite", [GRADIENT, LIBRARY], ids=["gradient", "library"])
def test_the_twin_is_differentiated_and_the_model_judges(
    suite: Suite, model: nn.Module, images: np.ndarray, labels: np.ndarray
) -> None:
    made: list[nn.Module] = []

    def surrogate(sample: Tensor) -> nn.Module:
        made.append(surrogate_of(model, sample))
        return made[-1]

    calls = seen_by(model)
    report = attack(model, images, labels, suite=suite, surrogate=surrogate)
    (stand_in,) = made
    assert isinstance(stand_in, Surrogate)
    assert stand_in.decider is model
    assert not any(wants_gradient for _, wants_gradient in calls)
    assert report.clean.sum() == 18
    assert 0 < min(bits.sum() for bits in report.attacks.values()) < 18


@pytest.mark.parametrize("proposals", ["fp32", "bf16"])
def test_both_ways_give_the_same_bits(
    proposals: FrozenPrecision, model: nn.Module, images: np.ndarray, labels: np.ndarray
) -> None:
    by_twin = attack(model, images, labels, proposals=proposals)
    by_model = attack(model, images, labels, surrogate=lambda _: model)
    for name, bits in by_model.attacks.items():
        # The sign of a gradient survives bfloat16 but for the least components.
        assert (by_twin.attacks[name] != bits).sum() <= (0 if proposals == "fp32" else 2)


class Gullible(FrozenTwin):
    """A twin that errs on every image: all that an attack on it finds is nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return -super().forward(x)


def test_where_only_the_twin_falls_nothing_is_broken(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> None:
    twins: list[Gullible] = []

    def surrogate(sample: Tensor) -> nn.Module:
        twins.append(Gullible(model, sample))
        return Surrogate(twins[0], model, 0.0)

    suite = Suite("t", 1, "", (SuiteColumn("PGD", "pgd-sat", {"steps": 4, "decide": "first"}),))
    honest = attack(model, images, labels, suite=suite)
    report = attack(model, images, labels, suite=suite, surrogate=surrogate)
    assert honest.attacks["PGD"].sum() < report.attacks["PGD"].sum() <= report.clean.sum()
    # The bits are what the model says, and no image was taken for broken on the twin's word.
    np.testing.assert_array_equal(report.attacks["PGD"], report.clean & (report.predictions["PGD"] == labels))


def test_the_models_word_counts_where_the_twin_still_stands(
    model: nn.Module, images: np.ndarray, labels: np.ndarray
) -> None:
    """The twin is sure of every label by a margin that no step of this attack takes away; its gradients are honest."""
    honest = attack(model, images, labels)
    x = torch.from_numpy(images).float() / 255
    targets = torch.from_numpy(labels)

    class Sure(FrozenTwin):
        def forward(self, x_adv: Tensor) -> Tensor:
            nearest = torch.cdist(x_adv.detach().flatten(1), x.flatten(1)).argmin(1)
            bonus = 2.0 * nn.functional.one_hot(targets[nearest], 4)
            return super().forward(x_adv) + bonus

    report = attack(model, images, labels, surrogate=lambda sample: Surrogate(Sure(model, sample), model, 0.0))
    assert honest.attacks["FGSM"].sum() < honest.clean.sum()
    for bits in report.attacks.values():
        assert bits.sum() < report.clean.sum()


@pytest.mark.parametrize("chunk", [None, 3])
def test_judging_takes_a_chunk_at_a_time(
    chunk: int | None, model: nn.Module, images: np.ndarray, labels: np.ndarray
) -> None:
    def surrogate(sample: Tensor) -> nn.Module:
        made = surrogate_of(model, sample)
        assert isinstance(made, Surrogate)
        made.chunk = made.proposer.chunk = chunk
        return made

    calls = seen_by(model)
    attack(model, images, labels, batch_size=9, surrogate=surrogate)
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
    report = attack(handing_on, images, labels, batch_size=20)
    # Natural; FGSM: natural, gradient, its verdict, ours; PGD: the same with up to 4 gradients. Whole batches all.
    assert handing_on.calls[:5] == [(20, False), (18, False), (18, True), (18, False), (18, False)]
    assert len(handing_on.calls) <= 12
    assert report.attacks["FGSM"].sum() < 18
