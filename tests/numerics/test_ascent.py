"""Oracle: on a linear objective the maximiser over the ball is known exactly."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.core.types import Threat
from compressor.numerics.ascent import Start, ascend, project
from compressor.numerics.randomness import make_generator

LINF, L2 = Threat("Linf", "8/255"), Threat("L2", "0.5")
STARTS: tuple[Start, ...] = ("none", "uniform", "gaussian")


def images(n: int = 6, *, low: float = 0.0, high: float = 1.0, seed: int = 0) -> torch.Tensor:
    return low + (high - low) * torch.rand(n, 3, 6, 6, generator=make_generator(seed, "images"))


def weights(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 6, 6, generator=make_generator(seed, "weights"))


def linear(w: torch.Tensor):
    return lambda x_adv, index: (x_adv * w).flatten(1).sum(1)


def norms(delta: torch.Tensor) -> np.ndarray:
    return np.linalg.norm(delta.double().flatten(1).numpy(), axis=1)


@pytest.mark.parametrize("start", STARTS)
def test_linf_reaches_the_exact_corner_of_the_ball(start: Start) -> None:
    x, w = images(), weights()
    scale = 0.001 if start == "gaussian" else 1.0
    x_adv = ascend(linear(w), x, LINF, make_generator(1), steps=12, step_size=2 / 255, start=start, start_scale=scale)
    eps = np.float32(LINF.radius)
    corner = np.where(w.numpy() > 0, x.numpy() + eps, x.numpy() - eps).clip(0, 1)
    np.testing.assert_array_equal(x_adv.numpy(), corner)


@pytest.mark.parametrize("start", STARTS)
def test_l2_reaches_the_point_along_the_gradient(start: Start) -> None:
    x, w = images(low=0.45, high=0.55), weights()
    scale = 0.001 if start == "gaussian" else 1.0
    x_adv = ascend(linear(w), x, L2, make_generator(1), steps=400, step_size=0.2, start=start, start_scale=scale)
    torch.testing.assert_close(x_adv, x + 0.5 * w / w.norm(), atol=1e-5, rtol=0)


def test_a_step_short_of_the_boundary_has_exactly_its_length() -> None:
    x, w = images(low=0.4, high=0.6), weights()
    in_l2 = ascend(linear(w), x, L2, make_generator(0), steps=1, step_size=0.125, start="none")
    np.testing.assert_allclose(norms(in_l2 - x), 0.125, rtol=1e-5)
    in_linf = ascend(linear(w), x, LINF, make_generator(0), steps=1, step_size=0.01, start="none")
    torch.testing.assert_close(in_linf, x + 0.01 * w.sign())


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
def test_more_steps_never_lower_a_concave_objective(threat: Threat) -> None:
    x, w = images(low=0.3, high=0.7), weights()
    values = []
    for steps in range(8):
        x_adv = ascend(linear(w), x, threat, make_generator(0), steps=steps, step_size=threat.radius / 8)
        values.append(linear(w)(x_adv, torch.arange(len(x))))
    assert all((after >= before - 1e-5).all() for before, after in pairwise(values))
    assert (values[-1] > values[0]).all()


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e30])
@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
def test_the_size_of_the_gradient_never_matters(threat: Threat, scale: float) -> None:
    x, w = images(), weights()

    def run(factor: float) -> torch.Tensor:
        return ascend(linear(w * factor), x, threat, make_generator(0), steps=3, step_size=threat.radius / 4)

    torch.testing.assert_close(run(scale), run(1.0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
@pytest.mark.parametrize("start", STARTS)
def test_fallen_images_leave_the_batch_and_keep_their_image(threat: Threat, start: Start) -> None:
    x = images(5, low=0.4, high=0.6)
    seen: list[list[int]] = []
    fell_at: dict[int, torch.Tensor] = {}

    def objective(x_adv: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        seen.append(index.tolist())
        values = (x_adv * weights()).flatten(1).sum(1)
        # Image i falls at the call number i + 2.
        falls = index == len(seen) - 2
        for position in torch.nonzero(falls).flatten().tolist():
            fell_at[int(index[position])] = x_adv[position].detach().clone()
        return torch.where(falls, torch.inf, values)

    x_adv = ascend(
        objective, x, threat, make_generator(0), steps=7, step_size=threat.radius / 10, start=start, start_scale=1e-3
    )
    assert seen == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [1, 2, 3, 4], [2, 3, 4], [3, 4], [4]]
    for i, image in fell_at.items():
        torch.testing.assert_close(x_adv[i], image, rtol=0, atol=1e-6)


def test_an_image_already_at_its_goal_is_not_moved() -> None:
    x = images()
    x_adv = ascend(
        lambda x_adv, index: torch.where(index == 2, torch.inf, x_adv.flatten(1).sum(1)),
        x,
        LINF,
        make_generator(0),
        steps=4,
        step_size=0.01,
        start="none",
    )
    torch.testing.assert_close(x_adv[2], x[2], rtol=0, atol=0)
    assert not torch.equal(x_adv[1], x[1])


def test_a_goal_reached_outside_the_ball_does_not_count() -> None:
    x = torch.full((1, 3, 6, 6), 0.5)
    far = Threat("Linf", "1/255")

    def objective(x_adv: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        outside = ((x_adv - x).abs().amax(dim=(1, 2, 3)) > far.radius * 1.01).detach()
        return torch.where(outside, torch.inf, x_adv.flatten(1).sum(1))

    x_adv = ascend(objective, x, far, make_generator(0), steps=4, step_size=0.01, start="gaussian", start_scale=0.5)
    torch.testing.assert_close(x_adv, x + far.radius)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
def test_gradients_that_are_not_finite_never_leave_the_ball(threat: Threat, bad: float) -> None:
    x = images()
    w = weights().clone()
    w[0, 0, :3] = bad
    x_adv = ascend(linear(w), x, threat, make_generator(0), steps=3, step_size=threat.radius / 2)
    assert x_adv.isfinite().all()
    assert_in_ball(x_adv, x, threat)


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
def test_a_nan_gradient_does_not_move_and_its_neighbours_do(threat: Threat) -> None:
    x = images(2, low=0.4, high=0.6)
    w = torch.stack([torch.full((3, 6, 6), torch.nan), weights()])
    x_adv = ascend(
        lambda x_adv, index: (x_adv * w[index]).flatten(1).sum(1),
        x,
        threat,
        make_generator(0),
        steps=2,
        step_size=threat.radius / 2,
        start="none",
    )
    torch.testing.assert_close(x_adv[0], x[0], rtol=0, atol=0)
    assert not torch.equal(x_adv[1], x[1])


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
@pytest.mark.parametrize("start", STARTS)
def test_inputs_and_global_randomness_are_untouched(threat: Threat, start: Start) -> None:
    x = images().requires_grad_()
    before, random = x.detach().clone(), torch.get_rng_state()
    x_adv = ascend(linear(weights()), x, threat, make_generator(0), steps=2, step_size=0.1, start=start)
    assert torch.equal(x.detach(), before)
    assert x.grad is None
    assert torch.equal(torch.get_rng_state(), random)
    assert not x_adv.requires_grad
    assert x_adv.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
@pytest.mark.parametrize("start", ["uniform", "gaussian"])
def test_the_generator_alone_decides(threat: Threat, start: Start) -> None:
    def run(seed: int) -> torch.Tensor:
        return ascend(
            linear(weights()), images(), threat, make_generator(seed), steps=1, step_size=1e-3, start=start,
            start_scale=0.01,
        )  # fmt: skip

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
def test_uniform_starts_fill_the_ball(threat: Threat) -> None:
    x = torch.full((400, 1, 4, 4), 0.5)
    start = ascend(linear(torch.ones(1, 4, 4)), x, threat, make_generator(3), steps=0, step_size=1.0)
    delta = (start - x).double()
    assert_in_ball(start, x, threat)
    if threat.norm == "Linf":
        assert delta.abs().max() > 0.99 * threat.radius
        assert delta.mean().abs() < 0.02 * threat.radius
        np.testing.assert_allclose(delta.std(), threat.radius / np.sqrt(3), rtol=0.03)
    else:
        # In a ball of 16 dimensions the radius to the 16th power is uniform: its mean is 1/2.
        np.testing.assert_allclose(((norms(start - x) / threat.radius) ** 16).mean(), 0.5, atol=0.05)


def test_the_gaussian_start_is_not_clipped_before_the_first_gradient() -> None:
    seen: list[torch.Tensor] = []

    def objective(x_adv: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        seen.append(x_adv.detach().clone())
        return x_adv.flatten(1).sum(1)

    x = torch.zeros(2, 3, 6, 6)
    x_adv = ascend(
        objective, x, LINF, make_generator(5), steps=2, step_size=2 / 255, start="gaussian", start_scale=0.001
    )
    noise = 0.001 * torch.randn(x.shape, generator=make_generator(5))
    assert torch.equal(seen[0], noise)
    assert torch.equal(seen[1], (noise + 2 / 255).clamp(0, 8 / 255))
    assert (x_adv >= 0).all()


@pytest.mark.parametrize("steps", [0, 2])
def test_no_images_make_no_images(steps: int) -> None:
    for threat in (LINF, L2):
        for start in STARTS:
            x_adv = ascend(
                linear(weights()), images(0), threat, make_generator(0), steps=steps, step_size=1.0, start=start
            )
            assert x_adv.shape == (0, 3, 6, 6)


def test_channels_last_images_give_the_same_contiguous_result() -> None:
    x = images()
    plain = ascend(linear(weights()), x, LINF, make_generator(0), steps=3, step_size=0.01)
    turned = ascend(
        linear(weights()), x.to(memory_format=torch.channels_last), LINF, make_generator(0), steps=3, step_size=0.01
    )
    assert turned.is_contiguous()
    assert torch.equal(plain, turned)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([LINF, L2, Threat("Linf", "1"), Threat("L2", "3")]), st.floats(0.001, 10))
def test_projection_lands_inside_and_leaves_the_inside_alone(seed: int, threat: Threat, spread: float) -> None:
    x = images(3, seed=seed)
    wild = x + spread * torch.randn(x.shape, generator=make_generator(seed))
    once = project(wild, x, threat)
    assert_in_ball(once, x, threat)
    torch.testing.assert_close(project(once, x, threat), once, rtol=0, atol=0 if threat.norm == "Linf" else 1e-6)
    assert torch.equal(project(x, x, threat), x)


def assert_in_ball(x_adv: torch.Tensor, x: torch.Tensor, threat: Threat) -> None:
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    if threat.norm == "Linf":
        eps = np.float32(threat.radius)
        assert (x_adv.numpy() >= x.detach().numpy() - eps).all()
        assert (x_adv.numpy() <= x.detach().numpy() + eps).all()
    else:
        assert (norms(x_adv - x.detach()) <= threat.radius * (1 + 1e-6) + 1e-6).all()


@pytest.mark.parametrize("chunk", [1, 4, 6, 100])
@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
@pytest.mark.parametrize("start", STARTS)
def test_chunks_change_nothing(start: Start, threat: Threat, chunk: int) -> None:
    """Images reach their goal at different steps, so that the others are never a whole number of chunks."""
    x, w = images(11, low=0.3, high=0.7), weights()
    sizes: list[int] = []
    dual = w.abs().sum() if threat.norm == "Linf" else w.norm()

    def run(chunk: int | None) -> torch.Tensor:
        at = linear(w)(x, torch.arange(11))

        def objective(x_adv: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            sizes.append(len(index))
            gained = linear(w)(x_adv, index) - at[index]
            return torch.where(gained > threat.radius * dual * index / 12, torch.inf, gained)

        return ascend(
            objective, x, threat, make_generator(0), steps=6, step_size=threat.radius / 5, start=start,
            start_scale=1e-3, chunk=chunk,
        )  # fmt: skip

    whole = run(None)
    assert len(set(sizes)) > 2
    sizes.clear()
    assert torch.equal(run(chunk), whole)
    assert max(sizes) == min(chunk, 11)


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
@pytest.mark.parametrize("start", STARTS)
def test_a_given_beginning_is_where_it_begins(threat: Threat, start: Start) -> None:
    x = images(4, low=0.4, high=0.6)
    initial = project(x + 0.02 * torch.randn(x.shape, generator=make_generator(9)), x, threat)
    before = initial.clone()
    generator = make_generator(0)
    undrawn = generator.get_state()
    seen: list[torch.Tensor] = []

    def objective(x_adv: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        seen.append(x_adv.detach().clone())
        # The first image is at its goal already, and keeps its place.
        return torch.where(index == 0, torch.inf, linear(weights())(x_adv, index))

    x_adv = ascend(objective, x, threat, generator, steps=2, step_size=threat.radius / 4, start=start, initial=initial)
    assert torch.equal(seen[0], before)
    assert torch.equal(generator.get_state(), undrawn)
    assert torch.equal(initial, before)
    torch.testing.assert_close(x_adv[0], before[0], rtol=0, atol=1e-6)
    assert not torch.equal(x_adv[1], before[1])
    for steps in (0, 1):
        again = ascend(
            linear(weights()), x, threat, generator, steps=steps, step_size=threat.radius / 4, initial=initial
        )
        assert torch.equal(initial, before)
        assert again.data_ptr() != initial.data_ptr()


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
@pytest.mark.parametrize("start", STARTS)
def test_images_that_stay_in_the_batch_end_where_those_that_leave_it_do(start: Start, threat: Threat) -> None:
    x = images(8, low=0.3, high=0.7)
    seen: list[int] = []

    def run(*, early_exit: bool) -> torch.Tensor:
        seen.clear()

        def objective(x_adv: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            seen.append(len(index))
            return torch.where(index < len(seen) - 1, torch.inf, linear(weights())(x_adv, index))

        return ascend(
            objective, x, threat, make_generator(0), steps=6, step_size=threat.radius / 5, start=start,
            start_scale=1e-3, early_exit=early_exit,
        )  # fmt: skip

    left = run(early_exit=True)
    assert seen[-1] < 8
    assert torch.equal(run(early_exit=False), left)
    assert seen == [8] * 6


def test_without_a_generator_torchs_own_draws() -> None:
    x = images()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        first = ascend(linear(weights()), x, LINF, steps=1, step_size=1e-3)
        torch.manual_seed(5)
        assert torch.equal(ascend(linear(weights()), x, LINF, steps=1, step_size=1e-3), first)
