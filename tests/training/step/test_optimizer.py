"""Which parameters weight decay reaches."""

from __future__ import annotations

from compressor.core.types import ModelSpec
from compressor.models.classifier import build_classifier
from compressor.runs.recipe import resolve
from compressor.training.step.optimizer import make_optimizer


def test_all_parameters_decay_unless_the_recipe_spares_biases_and_batch_norm() -> None:
    student = build_classifier(ModelSpec("wideresnet-10-1", 3, 16), seed=0)
    names = {id(parameter): name for name, parameter in student.named_parameters()}
    decays: dict[str, dict[str, float]] = {}
    for choice in ("all", "weights"):
        recipe = resolve("sat", "wideresnet-10-1", None, {"weight_decay_on": choice, "weight_decay": 0.5})
        groups = make_optimizer(student, recipe).param_groups
        decays[choice] = {names[id(p)]: group["weight_decay"] for group in groups for p in group["params"]}
    assert set(decays["all"]) == set(decays["weights"]) == set(names.values())
    assert set(decays["all"].values()) == {0.5}
    spared = {name for name, decay in decays["weights"].items() if decay == 0}
    assert spared == {name for name in names.values() if "bn" in name or name.endswith("bias")}
