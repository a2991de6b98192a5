from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from compressor.attacks import _square
from compressor.attacks.square import ATTACK, Square
from compressor.core.errors import UsageError
from compressor.core.types import Threat
from compressor.frozen import Surrogate
from compressor.numerics.losses import cw_margin
from compressor.numerics.randomness import make_generator

THREATS = [Threat("Linf", "0.1"), Threat("L2", "0.6")]
both_norms = pytest.mark.parametrize("threat", THREATS, ids=str)


def library(model: nn.Module | None, threat: Threat, queries: int = 1, seed: int = 0) -> SquareAttack:
    """The authors' attack, as their standard version runs it."""
    return SquareAttack(model, norm=threat.norm, eps=threat.radius, n_queries=queries, device=torch.device("cpu"),
                        resc_schedule=False, seed=seed)  # fmt: skip


def length(delta: Tensor, threat: Threat) -> Tensor:
    return torch.linalg.vector_norm(delta.flatten(1), ord=math.inf if threat.norm == "Linf" else 2, dim=1)


class Watched(nn.Module):
    """Remembers the images that go through a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        assert not x.requires_grad
        self.seen.append(x.clone())
        return self.model(x)


def test_its_defaults_are_those_of_autoattack() -> None:
    assert Square(queries=5000) == ATTACK
    with pytest.raises(UsageError):
        Square(queries=0)


def test_the_schedule_is_the_librarys() -> None:
    attack = library(None, THREATS[0])
    for query in (*range(60), *range(195, 205), *range(495, 505), *range(995, 1005), *range(0, 10000, 97)):
        assert _square.window_share(query) == pytest.approx(attack.p_selection(query))


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 6, 9, 13, 29])
def test_bumps_are_the_librarys(side: int) -> None:
    with torch.random.fork_rng():
        theirs = library(None, THREATS[1]).eta(side)
    ours = _square._bump(side)
    assert torch.linalg.vector_norm(ours).item() == pytest.approx(1)
    assert torch.allclose(ours, theirs, atol=1e-6) or torch.allclose(ours.T, theirs, atol=1e-6)


@both_norms
@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (3, 1, 5, 5), (1, 1, 1, 1), (2, 3, 2, 9), (2, 1, 12, 7)])
def test_every_proposal_is_in_the_ball_and_an_image(threat: Threat, shape: tuple[int, ...]) -> None:
    generator = make_generator(0)
    x = torch.rand(shape, generator=generator)
    best = _square.start(x, threat, generator)
    assert (length(best - x, threat) > 0).all()
    for query in (0, 1, 11, 60, 300, 700, 1500, 3000, 5000, 9000):
        assert best.shape == x.shape
        assert ((best >= 0) & (best <= 1)).all()
        assert (length(best - x, threat) <= threat.radius * (1 + 1e-5)).all()
        before = best.clone()
        candidate = _square.propose(best, x, threat, query, generator)
        assert torch.equal(best, before), "what is best so far is not written to"
        best = candidate


@pytest.mark.parametrize("query", [0, 20, 100, 400, 4500])
def test_linf_recolours_one_square_alike_in_every_image(query: int) -> None:
    threat = Threat("Linf", "0.1")
    generator = make_generator(query)
    x = 0.3 + 0.4 * torch.rand(4, 3, 32, 32, generator=generator)
    candidate = _square.propose(x.clone(), x, threat, query, generator)
    delta = candidate - x
    changed = (delta != 0).all(0).all(0)
    side = round(math.sqrt(_square.window_share(query) * 32 * 32))
    assert changed.sum() == side**2
    rows, columns = (torch.nonzero(changed.any(d)).squeeze(1) for d in (1, 0))
    assert len(rows) == len(columns) == side == int(rows[-1] - rows[0]) + 1
    assert torch.equal((delta != 0).any(0).any(0), changed)
    inside = delta[:, :, changed]
    torch.testing.assert_close(inside.abs(), torch.full_like(inside, 0.1))
    assert (inside.sign() == inside.sign()[:1, :, :1]).all(), "one sign for each channel"


def test_windows_reach_every_corner_and_no_place_is_preferred() -> None:
    generator = make_generator(1)
    x = torch.full((1, 1, 6, 6), 0.5)
    threat = Threat("Linf", "0.1")
    counts = sum(((_square.propose(x, x, threat, 9999, generator) != x).float() for _ in range(2000)), torch.zeros(1))
    # A window of one pixel: each of 36 is expected 55.6 times, with a standard deviation of 7.4.
    assert counts.sum() == 2000
    assert 20 <= counts.min() <= counts.max() <= 95


def test_l2_uses_all_of_eps_where_the_box_lets_it() -> None:
    threat = Threat("L2", "0.5")
    generator = make_generator(2)
    x = torch.full((3, 3, 32, 32), 0.5)
    best = _square.start(x, threat, generator)
    for query in range(0, 600, 50):
        torch.testing.assert_close(length(best - x, threat), torch.full((3,), 0.5))
        best = _square.propose(best, x, threat, query, generator)


@both_norms
def test_the_best_margin_only_grows_and_nothing_better_is_refused(linear_digits: Any, threat: Threat) -> None:
    x, y = linear_digits.x, linear_digits.y
    right = linear_digits.model(x).argmax(1) == y
    x, y = x[right][:1], y[right][:1]
    small = Threat(threat.norm, "0.02")
    watched = Watched(linear_digits.model)
    x_adv, broken = Square(queries=60)(watched, x, y, small, make_generator(3))
    assert not broken.any()
    margins = torch.stack([cw_margin(linear_digits.model(image), y) for image in watched.seen[1:]])
    assert cw_margin(linear_digits.model(x_adv), y) == margins.max()
    assert margins.max() > margins[0]


@both_norms
def test_a_query_is_a_forward_pass_and_the_fallen_make_no_more(linear_digits: Any, threat: Threat) -> None:
    x, y = linear_digits.x[:80], linear_digits.y[:80]
    robust_so_far = int((linear_digits.model(x).argmax(1) == y).sum())
    watched = Watched(linear_digits.model)
    Square(queries=30)(watched, x, y, Threat(threat.norm, "0.0001"), make_generator(0))
    sizes = [len(images) for images in watched.seen]
    # The natural images, the start, the queries, and the last word.
    assert sizes == [80, robust_so_far, *[robust_so_far] * 30, robust_so_far]

    watched = Watched(linear_digits.model)
    _, broken = Square(queries=30)(watched, x, y, threat, make_generator(0))
    sizes = [len(images) for images in watched.seen]
    assert sizes[1:-1] == sorted(sizes[1:-1], reverse=True)
    # Who breaks at the last query of all was still there when it was made.
    assert int((~broken).sum()) <= sizes[-2] < robust_so_far


@both_norms
def test_it_breaks_as_many_as_the_library(linear_digits: Any, threat: Threat) -> None:
    """Both draw at random, so counts are compared: ours may be larger, as its windows reach the last row and column."""
    model, x, y = linear_digits.model, linear_digits.x, linear_digits.y
    right = model(x).argmax(1) == y
    x, y = x[right], y[right]
    smaller = Threat(threat.norm, "0.05" if threat.norm == "Linf" else "0.4")
    ours = theirs = 0
    for seed in range(3):
        ours += int(Square(queries=150)(model, x, y, smaller, make_generator(seed)).broken.sum())
        with torch.random.fork_rng(), torch.no_grad():
            theirs += int((model(library(model, smaller, 150, seed).perturb(x, y)).argmax(1) != y).sum())
    assert 30 <= theirs <= 600
    assert theirs * 0.97 <= ours <= theirs * 1.5


@both_norms
def test_the_search_depends_on_who_else_stands_only_by_its_start(linear_digits: Any, threat: Threat) -> None:
    """What the first of a batch meets is what it would meet alone: proposals are drawn once for all."""
    x, y = linear_digits.x, linear_digits.y
    right = linear_digits.model(x).argmax(1) == y
    x, y = x[right][:20], y[right][:20]

    def proposals(count: int) -> list[Tensor]:
        generator = make_generator(5)
        images = x[:count]
        best = images.clone()
        return [_square.propose(best, images, threat, query, generator)[0] for query in range(20)]

    assert all(torch.equal(one, many) for one, many in zip(proposals(1), proposals(20), strict=True))


class NoGradient(nn.Module):
    """A classifier that rounds its logits, as quantisation does: its gradient is zero everywhere."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return (self.model(x) * 100).round() / 100


def test_it_needs_no_gradient(linear_digits: Any) -> None:
    model = NoGradient(linear_digits.model)
    y = model(linear_digits.x).argmax(1)
    _, broken = Square(queries=200)(model, linear_digits.x, y, Threat("Linf", "0.1"), make_generator(0))
    assert broken.sum() > 30


def test_more_queries_break_no_fewer(linear_digits: Any) -> None:
    counts = [
        int(Square(queries=n)(linear_digits.model, linear_digits.x, linear_digits.y, Threat("Linf", "0.05"),
                              make_generator(0)).broken.sum())
        for n in (1, 30, 300)
    ]  # fmt: skip
    assert counts[0] <= counts[1] <= counts[2]
    assert counts[0] < counts[2]


def test_a_surrogates_model_decides_and_is_asked_only_about_progress(linear_digits: Any) -> None:
    class Stubborn(nn.Module):
        """Agrees with the proposer on natural images, and never errs on another."""

        def __init__(self) -> None:
            super().__init__()
            self.asked = 0

        def forward(self, images: Tensor) -> Tensor:
            self.asked += len(images)
            return nn.functional.one_hot(torch.full((len(images),), int(y[0])), 10).float()

    x, y = linear_digits.x, linear_digits.y
    chosen = (linear_digits.model(x).argmax(1) == y) & (y == 3)
    x, y = x[chosen], y[chosen]
    decider = Stubborn()
    threat = Threat("Linf", "0.3")
    _, broken = Square(queries=100)(Surrogate(linear_digits.model, decider, 0.0), x, y, threat, make_generator(0))
    assert not broken.any()
    # Twice for everybody, before and after; in between only where the proposer errs more than ever.
    assert 2 * len(x) < decider.asked < 2 * len(x) + 40 * len(x)
    _, fell = Square(queries=100)(
        Surrogate(linear_digits.model, linear_digits.model, 0.0), x, y, threat, make_generator(0)
    )
    _, plain = Square(queries=100)(linear_digits.model, x, y, threat, make_generator(0))
    assert fell.any()
    assert torch.equal(fell, plain)


def test_logits_that_are_not_finite_are_found_and_stop_nobody(linear_digits: Any) -> None:
    class Sometimes(nn.Module):
        """NaN logits where the first pixel is above a half."""

        def forward(self, images: Tensor) -> Tensor:
            return torch.where((images[:, 0, 0, 0] > 0.5).view(-1, 1), torch.nan, linear_digits.model(images))

    x, y = linear_digits.x.clone(), linear_digits.y
    right = linear_digits.model(x).argmax(1) == y
    x, y = x[right][:12], y[right][:12]
    x[:, 0, 0, 0] = 0.0
    x[::2, 0, 0, 0] = 0.495  # within reach
    x_adv, broken = Square(queries=40)(Sometimes(), x, y, Threat("Linf", "0.01"), make_generator(0))
    assert broken[::2].all()
    assert not broken[1::2].all()
    assert x_adv.isfinite().all()
