"""Oracle: ``autoattack-reference``, the authors' own loops; every part's own oracle stands in its own file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from compressor.core.errors import UsageError
from compressor.core.registry import ATTACKS
from compressor.core.types import Threat
from compressor.numerics.randomness import make_generator
from compressor.numerics.statistics import mcnemar

ATTACK = ATTACKS.get("autoattack")
REFERENCE = ATTACKS.get("autoattack-reference")
THREATS = [Threat("Linf", "0.1"), Threat("L2", "0.5")]
FEW = {"steps": 20, "targets": 9, "queries": 150}


def test_it_has_the_stages_and_the_defaults_of_the_reference() -> None:
    assert [name for name, _ in ATTACK.stages] == [name for name, _ in REFERENCE.stages]
    assert [name for name, _ in ATTACK.stages] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    for field in ("attacks", "steps", "targets", "queries"):
        assert getattr(ATTACK, field) == getattr(REFERENCE, field)
    assert not ATTACK.is_reference


def test_its_settings_reach_its_parts() -> None:
    parts = dict(replace(ATTACK, steps=3, targets=2, queries=7).stages)
    assert (parts["apgd-ce"].steps, parts["apgd-t"].steps, parts["fab-t"].steps) == (3, 3, 3)
    assert (parts["apgd-t"].targets, parts["fab-t"].targets, parts["square"].queries) == (2, 2, 7)


def test_a_part_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="'apgd-x'"):
        replace(ATTACK, attacks=("apgd-x",))


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_it_agrees_with_the_reference_image_by_image(linear_digits: Any, threat: Threat) -> None:
    """A few hundred images: as many are left by one as by the other, and hardly one is judged otherwise."""
    torch.manual_seed(0)
    hidden = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 10)
    )  # not linear: no attack is sure of its optimum
    optimizer = torch.optim.Adam(hidden.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(hidden(linear_digits.x), linear_digits.y).backward()
        optimizer.step()
    model, x, y = hidden.eval(), linear_digits.x, linear_digits.y
    assert len(x) >= 256
    ours = replace(ATTACK, **FEW)(model, x, y, threat, make_generator(0)).broken
    theirs = replace(REFERENCE, **FEW)(model, x, y, threat, torch.Generator().manual_seed(0)).broken
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    assert 0.1 < float(theirs.float().mean()) < 0.95
    assert only_ours + only_theirs <= 6
    assert mcnemar(only_ours, only_theirs) > 0.01
    assert (only_theirs - only_ours) / len(x) <= 0.005


def test_each_part_runs_on_what_the_ones_before_it_left(linear_digits: Any) -> None:
    """APGD-CE alone breaks as many as it does in front; the later parts only add."""
    threat = THREATS[0]
    front = replace(ATTACK, attacks=("apgd-ce",), **FEW)
    alone = front(linear_digits.model, linear_digits.x, linear_digits.y, threat, make_generator(0))
    whole = replace(ATTACK, **FEW)(linear_digits.model, linear_digits.x, linear_digits.y, threat, make_generator(0))
    assert (whole.broken | ~alone.broken).all()
    assert torch.equal(whole.x_adv[alone.broken], alone.x_adv[alone.broken])


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", ["autoattack", "autoattack-reference"])
def test_targeted_apgd_alone_breaks_a_model_of_few_classes(name: str, classes: int) -> None:
    generator = make_generator(1, "few")
    model = nn.Sequential(nn.Flatten(), nn.Linear(75, classes))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(classes, 75, generator=generator))
    x = torch.rand(6, 3, 5, 5, generator=generator)
    y = model(x).argmax(1)
    attack = replace(ATTACKS.get(name), attacks=("apgd-t",), steps=10)
    _, broken = attack(model, x, y, Threat("Linf", "0.5"), make_generator(0))
    assert broken.all()
