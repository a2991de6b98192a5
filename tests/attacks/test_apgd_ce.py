"""Oracles: the library's own loop, step by step, and a linear model whose breakable images are known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor, nn

from compressor.attacks._apgd import random_start, run_apgd
from compressor.core.errors import UsageError
from compressor.core.registry import ATTACKS
from compressor.core.types import Threat
from compressor.frozen import Surrogate
from compressor.numerics import losses
from compressor.numerics.randomness import make_generator
from tests.support.networks import small_network

ATTACK = ATTACKS.get("apgd-ce")
BOTH = [Threat("Linf", "0.02"), Threat("L2", "0.4")]
TINY = [Threat("Linf", "0.0001"), Threat("L2", "0.0001")]

both_norms = pytest.mark.parametrize("threat", BOTH, ids=str)


class Watched(nn.Module):
    """A small network that keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.network = small_network(nn.ReLU(), 6).eval()
        generator = make_generator(0, "watched")
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
                parameter.requires_grad_(False)
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(x.detach().clone())
        logits: Tensor = self.network(x)
        return logits


def case(count: int = 24) -> tuple[Watched, Tensor, Tensor]:
    model = Watched()
    x = torch.rand(count, 3, 8, 8, generator=make_generator(1, "images"))
    return model, x, model(x).argmax(1)


def library_run(name: str, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, start: Tensor, steps: int) -> Any:
    """The library's single run; its targeted loss goes for the third class of the natural image."""
    common = {"n_iter": steps, "eps": threat.radius, "norm": threat.norm, "seed": 0, "device": "cpu"}
    if name == "targeted_dlr":
        attack = APGDAttack_targeted(model, **common)
        attack.y_target = targets(model, x)
    else:
        attack = APGDAttack(model, loss={"cross_entropy": "ce", "dlr": "dlr"}[name], **common)
    attack.init_hyperparam(x)
    return attack.attack_single_run(x, y, x_init=start)


def targets(model: nn.Module, x: Tensor) -> Tensor:
    return model(x).sort(dim=1).indices[:, -3]


def our_run(name: str, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, start: Tensor, steps: int) -> Any:
    if name == "targeted_dlr":
        aims = targets(model, x)
        return run_apgd(model, x, y, threat, lambda z, i: losses.targeted_dlr(z, y[i], aims[i]), start, steps=steps)
    loss = getattr(losses, name)
    return run_apgd(model, x, y, threat, lambda z, i: loss(z, y[i]), start, steps=steps)


@pytest.mark.parametrize("threat", TINY, ids=str)
@pytest.mark.parametrize("name", ["cross_entropy", "dlr", "targeted_dlr"])
def test_every_step_is_the_library_s_where_nobody_falls(name: str, threat: Threat) -> None:
    model, x, y = case()
    start = random_start(x, threat, make_generator(2))
    model.asked.clear()
    library_run(name, model, x, y, threat, start, steps=60)
    theirs = list(model.asked)
    model.asked.clear()
    our_run(name, model, x, y, threat, start, steps=60)
    assert len(model.asked) == len(theirs) >= 61
    for step, (mine, reference) in enumerate(zip(model.asked, theirs, strict=True)):
        assert float((mine - reference).abs().max()) < 2e-7, step


@both_norms
@pytest.mark.parametrize("name", ["cross_entropy", "dlr", "targeted_dlr"])
def test_a_run_breaks_the_images_that_the_library_s_breaks(name: str, threat: Threat) -> None:
    model, x, y = case(80)
    start = random_start(x, threat, make_generator(2))
    _, right, _, _ = library_run(name, model, x, y, threat, start, steps=40)
    x_adv, broken = our_run(name, model, x, y, threat, start, steps=40)
    assert 0 < int(broken.sum()) < len(x)
    assert torch.equal(broken, ~right)
    assert torch.equal(model(x_adv).argmax(1) != y, broken)


@both_norms
def test_a_start_lies_on_the_sphere_as_the_library_s_does(threat: Threat) -> None:
    x = torch.full((4, 3, 6, 6), 0.5)
    start = random_start(x, threat, make_generator(0))
    delta = (start - x).flatten(1)
    reach = delta.abs().amax(1) if threat.norm == "Linf" else delta.norm(dim=1)
    torch.testing.assert_close(reach, torch.full((4,), threat.radius), atol=1e-6, rtol=0)


def test_who_has_fallen_is_asked_no_more() -> None:
    model, x, y = case(40)
    model.asked.clear()
    _, broken = our_run("cross_entropy", model, x, y, BOTH[0], random_start(x, BOTH[0], make_generator(2)), steps=30)
    sizes = [len(batch) for batch in model.asked]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 40
    assert sizes[-1] == int((~broken).sum()) < 40


def test_chunks_change_nothing_but_rounding() -> None:
    model, x, y = case(30)
    threat = BOTH[0]
    start = random_start(x, threat, make_generator(2))
    whole = our_run("dlr", model, x, y, threat, start, steps=20)
    model.chunk = 7  # type: ignore[assignment]
    model.asked.clear()
    parts = our_run("dlr", model, x, y, threat, start, steps=20)
    assert max(len(batch) for batch in model.asked) == 7
    assert torch.equal(whole[1], parts[1])
    torch.testing.assert_close(whole[0], parts[0], atol=1e-6, rtol=0)


def test_of_a_surrogate_only_its_model_decides() -> None:
    """The proposer errs as soon as the first pixel has moved; the model never does."""

    class Never(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.flatten(1).sum(1) * 0 + 1, x.flatten(1).sum(1) * 0], dim=1)

    class Always(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            moved = (x[:, 0, 0, 0] - 0.5).abs()
            return torch.stack([0.01 - moved, moved], dim=1)

    x, y = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    threat = Threat("Linf", "0.1")
    assert ATTACK(Always(), x, y, threat, make_generator(0)).broken.all()
    fooled = replace(ATTACK, steps=5)(Surrogate(Always(), Never(), 0.0), x, y, threat, make_generator(0))
    assert not fooled.broken.any()


def test_it_finds_every_breakable_image_of_a_linear_model_of_two_classes(linear_digits: Any) -> None:
    """There its loss has no local maximum: all breakable images fall, and no other can."""
    pair = [3, 8]
    linear = nn.Linear(64, 2)
    with torch.no_grad():
        linear.weight.copy_(linear_digits.model[1].weight[pair])
        linear.bias.copy_(linear_digits.model[1].bias[pair])
    chosen = torch.isin(linear_digits.y, torch.tensor(pair))
    x, y = linear_digits.x[chosen], (linear_digits.y[chosen] == pair[1]).long()
    threat = Threat("Linf", "0.12")
    found = ATTACK(nn.Sequential(nn.Flatten(), linear), x, y, threat, make_generator(0)).broken
    expected = type(linear_digits)(nn.Sequential(nn.Flatten(), linear), x, y).breakable(threat)
    assert 0 < expected.sum() < len(x)
    assert found.tolist() == expected.tolist()


def test_restarts_only_add() -> None:
    model, x, y = case(80)
    once = replace(ATTACK, steps=1)(model, x, y, BOTH[0], make_generator(3)).broken
    more = replace(ATTACK, steps=1, restarts=10)(model, x, y, BOTH[0], make_generator(3)).broken
    assert (more | ~once).all()
    assert int(more.sum()) > int(once.sum())


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"restarts": 0}])
def test_what_is_no_attack_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="is no attack"):
        replace(ATTACK, **wrong)


def test_its_defaults_are_the_standard_version_s() -> None:
    assert (ATTACK.loss, ATTACK.steps, ATTACK.restarts) == ("cross_entropy", 100, 1)


def test_the_last_quarter_is_walked_with_the_exact_proposer_from_the_best_point() -> None:
    """The coarse proposer's loss is rounded to a whole number, so it cannot tell its last points apart."""

    class Coarse(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            logits = self.model(x)
            return logits + (logits.round() - logits).detach()

    exact, x, y = case(40)
    coarse = Coarse(Watched())
    finisher = Surrogate(exact, exact, 0.0)
    surrogate = Surrogate(coarse, exact, 0.0, finisher=finisher)
    threat = TINY[0]
    start = random_start(x, threat, make_generator(2))
    exact.asked.clear()
    coarse.model.asked.clear()
    asked = {}
    for name, model in (("coarse", Surrogate(coarse, exact, 0.0)), ("finished", surrogate)):
        coarse.model.asked.clear()
        our_run("cross_entropy", model, x, y, threat, start, steps=20)
        asked[name] = len(coarse.model.asked)
    assert asked == {"coarse": 21, "finished": 15}
    # Nobody fell, so what the exact proposer was asked are its own steps, besides the questions to the decider.
    steps = [batch for batch in exact.asked if len(batch) == 40]
    assert len(steps) >= 6
