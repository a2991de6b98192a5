"""Attacks, evaluations and alarms on the device: held against the CPU's by their outcomes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.attacks.fab_t import ATTACK as FAB
from compressor.core.registry import ATTACKS
from compressor.core.types import Threat
from compressor.evaluation.evaluate import estimate_autoattack_seconds, evaluate
from compressor.evaluation.suites import Suite, SuiteColumn
from compressor.frozen import surrogate_of
from compressor.numerics.augment import to_float_tensor
from compressor.numerics.ball import inside_ball
from compressor.numerics.randomness import make_generator

Pictures = tuple[Tensor, Tensor]
Agree = Callable[[Tensor, Tensor, Tensor], bool]
CPU = torch.device("cpu")
FEW = {"steps": 8, "queries": 40, "targets": 2, "restarts": 1}
THREATS = [Threat("Linf", "12/255"), Threat("L2", "1.0")]
# Iterates follow signs of gradients and drift apart; what they find differs on images at the edge alone.
DIFFERING = 3


def member(name: str) -> Any:
    attack = ATTACKS.get(name)
    return replace(attack, **{key: FEW[key] for key in {f.name for f in fields(attack)} & FEW.keys()})


@pytest.mark.parametrize("threat", THREATS, ids=str)
@pytest.mark.parametrize("name", sorted(ATTACKS.members()))
def test_an_attack_breaks_what_it_breaks_on_the_cpu(
    name: str, threat: Threat, device: torch.device, classifier: nn.Module, pictures: Pictures, agree: Agree
) -> None:
    x, y = to_float_tensor(pictures[0]), pictures[1]
    here = member(name)(classifier, x, y, threat, make_generator(3))
    model = copy.deepcopy(classifier).to(device)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    there = member(name)(model, x.to(device), y.to(device), threat, make_generator(3))
    found = there.x_adv.cpu()
    assert there.x_adv.device == there.broken.device == device
    assert there.x_adv.is_contiguous()
    assert inside_ball(found.numpy(), x.numpy(), threat).all()
    assert agree(there.broken, model(there.x_adv), y)
    assert agree(there.broken, classifier(found), y)  # the CPU objects to ties alone
    # The library draws on the device: its noise is another one there.
    allowed = 2 * DIFFERING if name == "autoattack-reference" else DIFFERING
    assert int((there.broken.cpu() != here.broken).sum()) <= allowed
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("proposals", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["apgd-ce", "autoattack", "pgd-sat", "square"])
def test_an_attack_on_a_surrogate_breaks_what_the_model_itself_misclassifies(
    name: str, proposals: Any, device: torch.device, classifier: nn.Module, pictures: Pictures, agree: Agree
) -> None:
    x, y, model = to_float_tensor(pictures[0]).to(device), pictures[1].to(device), classifier.to(device)
    attacked = surrogate_of(model, x[:8], proposals)
    direct = member(name)(model, x, y, THREATS[0], make_generator(3))
    found = member(name)(attacked, x, y, THREATS[0], make_generator(3))
    assert agree(found.broken, model(found.x_adv), y)
    assert int((found.broken != direct.broken).sum()) <= DIFFERING


def test_a_device_generator_is_taken_too(device: torch.device, classifier: nn.Module, pictures: Pictures) -> None:
    x, y, model = to_float_tensor(pictures[0]).to(device), pictures[1].to(device), classifier.to(device)
    for name in ("pgd-sat", "apgd-ce", "square"):
        first, second = (
            member(name)(model, x, y, THREATS[0], make_generator(3, device=device)).broken for _ in range(2)
        )
        assert int((first != second).sum()) <= DIFFERING


def test_the_closest_errors_are_as_close(device: torch.device, classifier: nn.Module, pictures: Pictures) -> None:
    x, y = to_float_tensor(pictures[0]), pictures[1]
    attack = replace(FAB, steps=10, targets=2)
    model = copy.deepcopy(classifier).to(device)
    for norm in ("Linf", "L2"):
        _, here = attack.closest(classifier, x, y, norm, make_generator(0))
        _, there = attack.closest(model, x.to(device), y.to(device), norm, make_generator(0))
        both = here.isfinite() & there.cpu().isfinite()
        assert int((here.isfinite() != there.cpu().isfinite()).sum()) <= DIFFERING
        if both.any():
            ratio = there.cpu()[both].clamp_min(1e-6) / here[both].clamp_min(1e-6)
            assert float(ratio.median()) == pytest.approx(1.0, abs=0.05)


SUITE = Suite(
    "small", 1, "of these tests",
    (
        SuiteColumn("FGSM", "fgsm"), SuiteColumn("PGD", "pgd-sat", {"steps": 5}),
        SuiteColumn("AA", "autoattack", {"steps": 5, "queries": 20}),
    ),
)  # fmt: skip


@pytest.mark.parametrize("mode", ["alone", "cascade"])
def test_an_evaluation_agrees_with_the_cpu_s_and_goes_on_where_it_was(
    mode: Any, device: torch.device, classifier: nn.Module, pictures: Pictures, tmp_path: Path
) -> None:
    images, labels = (tensor.numpy() for tensor in pictures)
    settings: dict[str, Any] = {"seed": 0, "batch_size": 10, "mode": mode}
    here = evaluate(classifier, images, labels, THREATS[0], SUITE, **settings)
    model = copy.deepcopy(classifier).to(device)
    steps: list[str] = []

    def stop(name: str, done: int, total: int) -> None:
        steps.append(name)
        if len(steps) == 6:
            raise KeyboardInterrupt

    settings |= {"device": device, "state": tmp_path / "state", "model_digest": "of this test"}
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, images, labels, THREATS[0], SUITE, on_progress=stop, **settings)
    there = evaluate(model, images, labels, THREATS[0], SUITE, **settings)
    again = evaluate(model, images, labels, THREATS[0], SUITE, **settings)
    assert np.array_equal(there.clean, here.clean)
    for name, right in there.attacks.items():
        assert int((right != here.attacks[name]).sum()) <= DIFFERING
        assert np.array_equal(right, again.attacks[name])
    assert there.outside == here.outside
    assert {alarm.name for alarm in there.alarms} == {alarm.name for alarm in here.alarms}


class Softmax(nn.Module):
    """A model that ends in a softmax."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).softmax(1)


class Rounds(nn.Module):
    """A model behind a step function, whose gradient is zero everywhere."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model((x * 8).round() / 8)


class Peeks(nn.Module):
    """A model whose logits depend on the other images of the batch."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x - 0.5 * x.mean(0, keepdim=True) + 0.25)


class Dices(nn.Module):
    """A model that draws."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) + 0.1 * torch.randn(len(x), 3, device=x.device)


QUICK = Suite("quick", 1, "of these tests", (SuiteColumn("FGSM", "fgsm"), SuiteColumn("PGD", "pgd-sat", {"steps": 5})))


@pytest.mark.parametrize(
    ("lie", "alarm"),
    [
        (Softmax, "softmax-output"), (Rounds, "zero-gradients"), (Peeks, "batch-dependence"),
        (Dices, "randomised-output"),
    ],
)  # fmt: skip
def test_alarms_are_raised_on_the_device(
    lie: Callable[[nn.Module], nn.Module], alarm: str, device: torch.device, classifier: nn.Module, pictures: Pictures
) -> None:
    images, labels = (tensor.numpy() for tensor in pictures)

    def raised(where: torch.device) -> set[str]:
        model = lie(copy.deepcopy(classifier)).to(where).eval()
        report = evaluate(model, images, labels, THREATS[0], QUICK, seed=0, batch_size=10, device=where)
        return {found.name for found in report.alarms}

    assert alarm in raised(device)
    assert alarm in raised(CPU)


def test_the_time_of_autoattack_can_be_estimated(
    device: torch.device, classifier: nn.Module, pictures: Pictures
) -> None:
    assert estimate_autoattack_seconds(classifier.to(device), pictures[0], 24, device=device) > 0
