"""How the methods differ: what each one's attack and each one's gradient depend on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compressor.core.contracts import Batch
from compressor.core.registry import METHODS
from compressor.core.types import Threat
from compressor.numerics.ascent import ascend

CHANGES = ("labels", "teacher at x", "teacher at x'")
# What changes the attack, and what changes the gradient of the whole step.
DEPENDS = {
    "natural": ((), ("labels",)),
    "kd": ((), ("labels", "teacher at x")),
    "sat": (("labels",), ("labels",)),
    "trades": ((), ("labels",)),
    "mart": (("labels",), ("labels",)),
    "ard": (("labels",), ("labels", "teacher at x")),
    "iad": (("labels",), ("labels", "teacher at x", "teacher at x'")),
    "rslad": (("teacher at x",), ("teacher at x",)),
    "adaad": (("teacher at x'",), ("teacher at x'",)),
    "igdm": (("teacher at x'",), ("teacher at x'",)),
}


def step(worked, name: str, change: str = "", **settings: float) -> tuple[Tensor, Tensor]:
    """The adversarial images and the weights' gradient of one step, with one thing changed."""
    method, batch = METHODS.get(name)(**settings), worked.batch
    if change == "smoothing":
        batch = Batch(batch.x, batch.y, batch.teacher_logits, label_smoothing=0.3)
    if change == "no labels":
        batch = Batch(batch.x, torch.full_like(batch.y, -1), batch.teacher_logits)
    if change == "labels":
        batch = Batch(batch.x, batch.y.flip(0), batch.teacher_logits)
    if change == "teacher at x":
        batch = Batch(batch.x, batch.y, batch.teacher_logits.flip(1))
    if change == "teacher at x'":
        worked.teacher.weight.data = worked.teacher.weight.data.flip(0)
    objective = method.inner(worked.student, worked.teacher, batch)
    x_adv = batch.x
    if objective is not None:
        generator, threat = torch.Generator().manual_seed(0), Threat("L2", "0.2")
        x_adv = ascend(objective, batch.x, threat, generator, steps=3, step_size=0.1, start="uniform")
    worked.student.zero_grad()
    method.outer(worked.student, worked.teacher, batch, x_adv, worked.progress(9, 10))["total"].backward()
    return x_adv, worked.student.weight.grad.clone()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", sorted(DEPENDS))
def test_what_attack_and_gradient_depend_on(worked, name: str, change: str) -> None:
    (before_attack, before), (after_attack, after) = step(worked, name), step(worked, name, change)
    attack, gradient = DEPENDS[name]
    assert torch.equal(before_attack, after_attack) is (change not in attack)
    assert torch.equal(before, after) is (change not in gradient)


@pytest.mark.parametrize(
    ("name", "settings"),
    [*((name, {}) for name in sorted(METHODS.members())), ("kd", {"alpha": 1.0}), ("ard", {"alpha": 0.5})],
)
def test_what_a_method_declares_is_what_it_does(worked, name: str, settings: dict[str, float]) -> None:
    """Also those that are not in the table above: a new method is held to its word."""
    method = METHODS.get(name)(**settings)
    x_adv, before = step(worked, name, **settings)
    labels_matter = not torch.equal(before, step(worked, name, "labels", **settings)[1])
    assert labels_matter is (method.labels_in != "nothing")
    assert torch.equal(x_adv, worked.x) is (method.attack_mode == "none")
    natural_teacher_matters = not torch.equal(before, step(worked, name, "teacher at x", **settings)[1])
    assert natural_teacher_matters is (method.teacher_at == "natural")
    smoothed = step(worked, name, "smoothing", **settings)
    assert torch.equal(smoothed[0], x_adv), "attacks go by the labels as they are"
    assert torch.equal(smoothed[1], before) is (method.labels_in != "loss")
    if method.labels_in == "nothing":
        step(worked, name, "no labels", **settings)  # -1 as a class would raise
