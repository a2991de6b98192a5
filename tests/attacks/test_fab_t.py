from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from pyautoattack.fab_pt import FABAttack_PT
from scipy.optimize import linprog
from torch import Tensor, nn

from compressor.attacks.fab_t import ATTACK, TargetedFab
from compressor.core.errors import UsageError
from compressor.core.types import Norm, Threat
from compressor.frozen import Surrogate
from compressor.numerics.randomness import make_generator

both_norms = pytest.mark.parametrize("norm", ["Linf", "L2"])


def distance(x_adv: Tensor, x: Tensor, norm: Norm) -> Tensor:
    return torch.linalg.vector_norm((x_adv - x).flatten(1), ord=math.inf if norm == "Linf" else 2, dim=1)


def linear(classes: int, size: int, channels: int = 3) -> nn.Sequential:
    generator = make_generator("linear", classes, size)
    model = nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def network(classes: int = 10) -> tuple[nn.Module, Tensor, Tensor]:
    """A small network, images of 12 x 12, and labels that are wrong for the first two."""
    generator = make_generator("network", classes)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(288, classes),
    ).eval()  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 10
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * fan_in**-0.5)
    x = torch.rand(32, 3, 12, 12, generator=generator)
    y = model(x).argmax(1)
    y[:2] = (y[:2] + 1) % classes
    return model, x, y


class Counting(nn.Module):
    """Counts the images that go through a model, with and without a gradient."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.plain: list[int] = []
        self.differentiated: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        (self.differentiated if x.requires_grad else self.plain).append(len(x))
        return self.model(x)


def test_its_defaults_are_those_of_autoattack() -> None:
    assert (ATTACK.steps, ATTACK.targets) == (100, 9)
    with pytest.raises(UsageError):
        TargetedFab(steps=0)
    with pytest.raises(UsageError):
        TargetedFab(targets=0)


@both_norms
def test_on_a_linear_model_it_finds_the_minimal_distance(norm: Norm) -> None:
    model = linear(classes=5, size=8)
    x = torch.full((16, 3, 8, 8), 0.5) + 0.02 * torch.randn(16, 3, 8, 8, generator=make_generator(3))
    y = model(x).argmax(1)
    _, found = TargetedFab(steps=20).closest(model, x, y, norm, make_generator(0))
    weight, logits = model[1].weight.detach(), model(x).detach()
    # Logits are linear, the box is far: the gap to each class over the dual norm of the difference of weights.
    dual = torch.stack(
        [torch.linalg.vector_norm(weight - weight[c], ord=1 if norm == "Linf" else 2, dim=1) for c in y.tolist()]
    )
    to_class = (logits.gather(1, y.unsqueeze(1)) - logits) / dual
    nearest = to_class.scatter(1, y.unsqueeze(1), torch.inf).amin(1)
    # A step goes 5 % beyond the boundary on purpose; the last points are within a little of it.
    assert (found >= nearest * (1 - 1e-4)).all()
    assert (found <= nearest * 1.02).all()


def test_where_the_box_is_in_the_way_it_finds_what_the_linear_program_says() -> None:
    model = linear(classes=2, size=5, channels=1)
    generator = make_generator(1)
    x = torch.rand(40, 1, 5, 5, generator=generator).round() * 0.96 + 0.02
    y = model(x).argmax(1)
    weight, bias = (p.detach().double().numpy() for p in model[1].parameters())
    _, found = TargetedFab(steps=50).closest(model, x, y, "Linf", generator)
    active = 0
    for image, label, mine in zip(x.flatten(1).double().numpy(), y.tolist(), found.tolist(), strict=True):
        w, b = weight[1 - label] - weight[label], bias[1 - label] - bias[label]
        eye, ones = np.eye(25), np.ones((25, 1))
        exact = linprog(
            np.r_[np.zeros(25), 1],
            A_ub=np.block([[eye, -ones], [-eye, -ones], [-w, 0.0]]), b_ub=np.r_[np.zeros(50), w @ image + b],
            bounds=[*zip(-image, 1 - image, strict=True), (0, None)],
        )  # fmt: skip
        if exact.status == 2:
            assert mine == math.inf
            continue
        active += exact.fun > -(w @ image + b) / np.abs(w).sum() * 1.01
        assert exact.fun * (1 - 1e-4) <= mine <= exact.fun * 1.05 + 1e-6
    assert active >= 10


@both_norms
def test_every_run_is_the_librarys(norm: Norm) -> None:
    model, x, y = network()
    targets, steps = 3, 25
    theirs = torch.full((len(x),), math.inf)
    for rank in range(2, 2 + targets):
        attack = FABAttack_PT(model, norm=norm, n_iter=steps, eps=0.1, targeted=True, device=torch.device("cpu"))
        attack.target_class = rank
        x_adv = attack.attack_single_run(x, y, is_targeted=True)
        fell = model(x_adv).argmax(1) != y
        theirs = torch.where(fell, torch.minimum(theirs, distance(x_adv, x, norm)), theirs)
    x_adv, ours = TargetedFab(steps, targets).closest(model, x, y, norm, make_generator(0))
    assert torch.isfinite(theirs).sum() >= 30
    assert torch.equal(ours.isfinite(), theirs.isfinite())
    torch.testing.assert_close(distance(x_adv, x, norm), ours)
    # Hundreds of steps along kinks of ReLU: rounding may part two runs for good, but seldom.
    close = torch.isclose(ours, theirs, rtol=1e-3, atol=1e-6) | (ours == theirs)
    assert close.float().mean() >= 0.95
    assert (ours.sum() / theirs.sum() - 1).abs() < 0.01


@both_norms
def test_the_attack_breaks_what_the_library_breaks(norm: Norm) -> None:
    model, x, y = network()
    reach = TargetedFab(20, 3).closest(model, x, y, norm, make_generator(0))[1]
    threat = Threat(norm, f"{float(reach.median()):.6f}")
    ours = TargetedFab(20, 3)(model, x, y, threat, make_generator(0))
    plain = FABAttack_PT(model, norm=norm, n_iter=20, eps=threat.radius, targeted=True, n_target_classes=3,
                         device=torch.device("cpu"))  # fmt: skip
    with torch.random.fork_rng():
        theirs = plain.perturb(x, y)
    theirs_broke = model(theirs).argmax(1) != y
    assert 10 <= theirs_broke.sum() <= 22
    assert (ours.broken != theirs_broke).sum() <= 1


@both_norms
def test_distances_are_confirmed_and_say_what_happened(norm: Norm) -> None:
    model, x, y = network()
    x_adv, found = TargetedFab(15, 2).closest(model, x, y, norm, make_generator(0))
    assert (found[:2] == 0).all()
    assert torch.equal(x_adv[:2], x[:2])
    assert (found[2:] > 0).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    assert torch.equal(model(x_adv).argmax(1) != y, found.isfinite())
    torch.testing.assert_close(distance(x_adv, x, norm), found)


def test_more_steps_and_more_targets_are_never_farther(linear_digits: Any) -> None:
    model, x, y = linear_digits.model, linear_digits.x[:100], linear_digits.y[:100]
    few, more, most = (
        TargetedFab(steps, targets).closest(model, x, y, "L2", make_generator(0))[1]
        for steps, targets in ((1, 1), (20, 1), (20, 9))
    )
    assert (few >= more).all()
    assert (few > more).any()
    assert (more >= most).all()
    assert (more > most).any()


def test_the_fallen_leave_at_once() -> None:
    model, x, y = network()
    counting = Counting(model)
    steps, targets = 6, 4
    TargetedFab(steps, targets)(counting, x, y, Threat("Linf", "0.9"), make_generator(0))
    everyone = 30  # two are wrong as they are
    assert counting.differentiated[0] == everyone
    assert counting.differentiated == sorted(counting.differentiated, reverse=True)
    assert sum(counting.differentiated) <= 3 * everyone, "with such a radius the first steps break all"

    counting = Counting(model)
    TargetedFab(steps, targets)(counting, x, y, Threat("Linf", "0.00001"), make_generator(0))
    assert counting.differentiated == [everyone] * steps * targets, "one gradient a step"
    # The natural images, their ranking, one check a step, and the last word.
    assert counting.plain == [32, everyone, *[everyone] * steps * targets, everyone]


def test_a_surrogates_model_decides_and_is_asked_only_about_what_would_count() -> None:
    model, x, y = network()
    asked: list[Tensor] = []

    class Deaf(nn.Module):
        """Never errs, whatever the proposer says."""

        def forward(self, images: Tensor) -> Tensor:
            asked.append(images)
            return nn.functional.one_hot(model(x).argmax(1)[:1].expand(len(images)), 10).float()

    y = model(x).argmax(1)
    same = y == y[0]
    x, y = x[same], y[same]
    surrogate = Surrogate(model, Deaf(), uncertainty=0.0)
    threat = Threat("Linf", "0.02")
    _, broken = TargetedFab(8, 3)(surrogate, x, y, threat, make_generator(0))
    assert not broken.any()
    asked_in_search = asked[1:-1]
    assert asked_in_search
    for images in asked_in_search:
        nearest = torch.stack([distance(images, image.expand_as(images), "Linf") for image in x]).amin(0)
        assert (nearest <= threat.radius + 1e-7).all()
    _, found = TargetedFab(8, 3).closest(surrogate, x, y, "Linf", make_generator(0))
    assert (found == math.inf).all()


@both_norms
@pytest.mark.parametrize(("size", "channels", "classes"), [(5, 1, 2), (5, 3, 3), (1, 1, 2), (7, 1, 10)])
def test_small_odd_images_single_images_and_few_classes(norm: Norm, size: int, channels: int, classes: int) -> None:
    model = linear(classes, size, channels)
    x = 0.25 + 0.5 * torch.rand(1, channels, size, size, generator=make_generator(4))
    with torch.no_grad():  # a boundary just beside the image, so that there is an error to find
        model[1].bias.copy_(-(model[1].weight @ x.flatten()))
        model[1].bias[0] += 0.02
    y = torch.zeros(1, dtype=torch.int64)
    x_adv, found = TargetedFab(10).closest(model, x, y, norm, make_generator(0))
    assert x_adv.shape == x.shape
    assert 0 < found.item() < 0.2
    assert TargetedFab(10)(model, x, y, Threat(norm, "0.3"), make_generator(0)).broken.all()


def test_no_gradient_means_nothing_found_and_no_harm() -> None:
    class Flat(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([1.0, 0.0]) + 0 * x.flatten(1)[:, :2]

    x = torch.rand(3, 1, 5, 5, generator=make_generator(5))
    y = torch.zeros(3, dtype=torch.int64)
    x_adv, found = TargetedFab(5).closest(Flat(), x, y, "Linf", make_generator(0))
    assert (found == math.inf).all()
    assert torch.equal(x_adv, x)
    assert not TargetedFab(5)(Flat(), x, y, Threat("L2", "1"), make_generator(0)).broken.any()


@both_norms
def test_broken_gradients_spoil_no_other_image(norm: Norm) -> None:
    class Spiked(nn.Module):
        """The gradient of the first image is not a number."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            if x.requires_grad:
                x.register_hook(lambda g: torch.where(torch.arange(len(g)).view(-1, 1, 1, 1) == 0, torch.nan, g))
            return self.model(x)

    model, x, y = network()
    x, y = x[2:], y[2:]
    x_adv, found = TargetedFab(6, 2).closest(Spiked(model), x, y, norm, make_generator(0))
    _, plain = TargetedFab(6, 2).closest(model, x, y, norm, make_generator(0))
    assert found[0] == math.inf
    torch.testing.assert_close(found[1:], plain[1:])
    assert x_adv.isfinite().all()


def test_minimal_norms_leave_the_model_as_it_was() -> None:
    model, x, y = network()
    model.train()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    TargetedFab(3, 2).closest(model, x, y, "Linf", make_generator(0))
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(parameter.grad, torch.ones_like(parameter)) for parameter in model.parameters())
    empty = TargetedFab(3, 2).closest(model, x[:0], y[:0], "Linf", make_generator(0))
    assert empty[0].shape == (0, 3, 12, 12)
    assert empty[1].shape == (0,)


def test_the_room_attack_and_the_minimal_norm_agree(linear_digits: Any) -> None:
    model, x, y = linear_digits.model, linear_digits.x[:100], linear_digits.y[:100]
    found = TargetedFab(30).closest(model, x, y, "Linf", make_generator(0))[1]
    broken = TargetedFab(30)(model, x, y, Threat("Linf", "0.05"), make_generator(0)).broken
    assert 10 <= broken.sum() <= 90
    # An image that was broken leaves early; one whose nearest error lies outside is never broken.
    assert torch.equal(broken, found <= 0.05)
