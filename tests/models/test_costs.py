"""Operations counted by hand, on layers small enough for it; 2 for each multiply-add."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from compressor.core.contracts import Batch, Method, Objective, Progress
from compressor.core.registry import METHODS
from compressor.core.types import ModelSpec
from compressor.methods.natural import Natural
from compressor.methods.rslad import RSLAD
from compressor.methods.sat import SAT
from compressor.models.classifier import build_classifier, build_empty_network
from compressor.models.costs import (
    StepCost,
    forward_operations,
    input_gradient_operations,
    share_of_new_variants,
    step_cost,
    training_operations,
)
from compressor.numerics.augment import choose_variants, variant_count

CONV = 2 * (8 * 8) * 5 * (3 * 3 * 3)  # places x filters x (channels x 3 x 3)
HEAD = 2 * 5 * 4


def classifier() -> nn.Module:
    """A convolution, a mean and four logits: nothing in it can be mistaken for anything else."""
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 4),
    )


def test_a_convolution() -> None:
    conv = nn.Conv2d(3, 5, 3, padding=1, bias=False)
    assert forward_operations(conv, 8) == CONV
    assert input_gradient_operations(conv, 8) == 2 * CONV
    assert training_operations(conv, 8) == 2 * CONV


def test_a_strided_convolution_costs_by_its_output() -> None:
    conv = nn.Conv2d(3, 5, 3, padding=1, stride=2)
    assert forward_operations(conv, 8) == CONV // 4
    assert training_operations(conv, 8) == 2 * CONV // 4


def test_a_depthwise_convolution_meets_one_channel_only() -> None:
    conv = nn.Conv2d(3, 6, 3, padding=1, groups=3)
    by_hand = 2 * (8 * 8) * 6 * (1 * 3 * 3)
    assert forward_operations(conv, 8) == by_hand
    assert input_gradient_operations(conv, 8) == 2 * by_hand
    assert training_operations(conv, 8) == 2 * by_hand


def test_a_transposed_convolution_costs_by_its_input() -> None:
    conv = nn.ConvTranspose2d(3, 5, 3, stride=2)
    assert forward_operations(conv, 8) == CONV
    assert training_operations(conv, 8) == 2 * CONV


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer(bias: bool) -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10, bias=bias))
    assert forward_operations(linear, 8) == 2 * 192 * 10
    assert input_gradient_operations(linear, 8) == 4 * 192 * 10
    assert training_operations(linear, 8) == 4 * 192 * 10


def test_batched_products() -> None:
    class Gram(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rows = x.flatten(2)
            return torch.baddbmm(rows @ rows.transpose(1, 2), rows, rows.transpose(1, 2))

    assert forward_operations(Gram(), 8) == 2 * (2 * 3 * 64 * 3)


def test_only_what_training_needs_is_counted() -> None:
    model = classifier()
    assert forward_operations(model, 8) == CONV + HEAD
    assert input_gradient_operations(model, 8) == 2 * (CONV + HEAD)
    # The head needs the gradient to its input as well; the first convolution does not.
    assert training_operations(model, 8) == 2 * CONV + 3 * HEAD


def test_a_grouped_network_agrees_with_the_same_network_written_densely() -> None:
    """Three separate convolutions on a channel each are one depthwise convolution."""

    class Separate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(1, 2, 3, padding=1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([conv(part) for conv, part in zip(self.convs, x.split(1, dim=1), strict=True)], dim=1)

    grouped = nn.Conv2d(3, 6, 3, padding=1, groups=3)
    assert training_operations(Separate(), 8) == training_operations(grouped, 8)
    assert input_gradient_operations(Separate(), 8) == input_gradient_operations(grouped, 8)


def test_the_model_is_left_as_it_was() -> None:
    model = build_classifier(ModelSpec("mobilenetv2-0.1", 10), seed=0)
    model.eval().requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        training_operations(model, 32)
        step_cost(RSLAD(), model, model, image_size=32, attack_steps=1)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    assert all(value.device.type == "cpu" and torch.equal(value, before[k]) for k, value in model.state_dict().items())


def test_a_model_without_memory_costs_the_same() -> None:
    spec = ModelSpec("resnet18-0.1", 10)
    assert training_operations(build_empty_network(spec), 32) == training_operations(build_classifier(spec), 32)


@pytest.mark.parametrize("size", [8, 16])
def test_the_smallest_pictures_can_be_counted(size: int) -> None:
    assert training_operations(build_empty_network(ModelSpec("resnet18-0.1", 10)), size) > 0


def test_resnet18_on_cifar_is_what_is_published() -> None:
    # 0.56 G multiply-adds, as reported for the CIFAR port.
    assert forward_operations(build_empty_network(ModelSpec("resnet18", 10)), 32) / 2e9 == pytest.approx(0.56, abs=0.01)


def test_rslad_asks_once_attacks_ten_times_and_learns_twice() -> None:
    student, teacher = classifier(), nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    cost = step_cost(RSLAD(), student, teacher, image_size=8, attack_steps=10)
    assert cost == StepCost(teacher=2 * 192 * 4, attack=10 * 2 * (CONV + HEAD), outer=2 * (2 * CONV + 3 * HEAD))
    assert cost.total == cost.teacher + cost.attack + cost.outer


def test_a_warm_cache_asks_nothing() -> None:
    student, teacher = classifier(), nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    full = step_cost(RSLAD(), student, teacher, image_size=8, attack_steps=1)
    assert step_cost(RSLAD(), student, teacher, image_size=8, attack_steps=1, asked=0).teacher == 0
    assert step_cost(RSLAD(), student, teacher, image_size=8, attack_steps=1, asked=0.5).teacher == full.teacher / 2


def test_methods_without_a_teacher_or_an_attack() -> None:
    once = 2 * CONV + 3 * HEAD
    natural = step_cost(Natural(), classifier(), None, image_size=8, attack_steps=10)
    assert natural == StepCost(teacher=0, attack=0, outer=once)
    sat = step_cost(SAT(), classifier(), None, image_size=8, attack_steps=3)
    assert sat == StepCost(teacher=0, attack=3 * 2 * (CONV + HEAD), outer=once)


@dataclass(frozen=True)
class Probing:
    """A method that looks at the natural images once before the attack, and at its teacher in the outer step."""

    teacher_at = "adversarial"
    attack_mode = "train"
    selects_by = "robust"
    recipe_defaults = {}  # noqa: RUF012
    labels_in = "nothing"

    def inner(self, student: nn.Module, teacher: nn.Module, batch: Batch) -> Objective:
        natural = student(batch.x).detach()
        return lambda x_adv, index: (student(x_adv) - natural[index]).square().sum(1)

    def outer(
        self, student: nn.Module, teacher: nn.Module, batch: Batch, x_adv: Tensor, progress: Progress
    ) -> dict[str, Tensor]:
        return {"total": (student(x_adv) - teacher(x_adv)).square().mean()}


def test_what_a_method_does_itself_is_counted_where_it_does_it() -> None:
    student, teacher = classifier(), nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    method: Method = Probing()  # type: ignore[assignment]
    cost = step_cost(method, student, teacher, image_size=8, attack_steps=7, asked=0.0)
    forward = CONV + HEAD
    assert cost.teacher == 0  # the loop asks nothing; the method itself does
    assert cost.attack == forward + 7 * 2 * forward
    assert cost.outer == 2 * CONV + 3 * HEAD + 2 * 192 * 4  # no gradient through the frozen teacher


def test_a_term_that_starts_late_is_counted() -> None:
    """IAD asks its teacher about adversarial images from a third of the run on."""
    student, teacher = classifier(), nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    iad = METHODS.get("iad")
    late, never = (step_cost(iad(begin=begin), student, teacher, image_size=8, attack_steps=1) for begin in (0.3, 1.0))
    assert late.outer - never.outer >= 2 * 192 * 4


@pytest.mark.parametrize("name", sorted(METHODS.members()))
def test_every_method_can_be_counted(name: str) -> None:
    cost = step_cost(METHODS.get(name)(), classifier(), classifier(), image_size=8, attack_steps=2)
    assert cost.outer >= training_operations(classifier(), 8)


def test_share_of_new_variants_is_what_the_augmentation_draws() -> None:
    variants, epochs = variant_count(32), 300
    index = torch.arange(400).numpy()
    drawn = torch.stack([torch.from_numpy(choose_variants(0, epoch, index)) for epoch in range(epochs)])
    distinct = sum(len(drawn[:, i].unique()) for i in range(400))
    assert share_of_new_variants(variants, epochs) == pytest.approx(distinct / (400 * epochs), rel=0.01)
    assert share_of_new_variants(variants, epochs) == pytest.approx(0.4557, abs=1e-4)


def test_share_of_new_variants_at_its_ends() -> None:
    assert share_of_new_variants(162, 1) == pytest.approx(1)
    assert share_of_new_variants(1, 300) == pytest.approx(1 / 300)
