"""The shortest way onto a hyperplane, against closed forms, a linear program, a quadratic one, and the library."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pyautoattack.fab_projections import projection_l2, projection_linf
from scipy.optimize import linprog, minimize
from torch import Tensor

from compressor.attacks._projection import move_to_hyperplane
from compressor.core.types import Norm
from compressor.numerics.randomness import make_generator

both_norms = pytest.mark.parametrize("norm", ["Linf", "L2"])
LIBRARY = {"Linf": projection_linf, "L2": projection_l2}


def planes(count: int, size: int, reach: float, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Points, normals and offsets; the planes go through points ``reach`` times as far as the box's, on both sides."""
    generator = make_generator("planes", count, size, str(reach))
    x = torch.rand(count, size, generator=generator, dtype=dtype)
    normal = torch.randn(count, size, generator=generator, dtype=dtype)
    through = x + reach * (torch.rand(count, size, generator=generator, dtype=dtype) - x)
    return x, normal, (normal * (x - through)).sum(1)


def length(move: Tensor, norm: Norm) -> Tensor:
    return torch.linalg.vector_norm(move, ord=torch.inf if norm == "Linf" else 2, dim=1)


@both_norms
def test_far_from_the_box_it_is_the_offset_over_the_dual_norm(norm: Norm) -> None:
    _, normal, offset = planes(50, 40, 1.0)
    x, offset = torch.full_like(normal, 0.5), 1e-3 * offset
    move = move_to_hyperplane(x, normal, offset, norm)
    dual = torch.linalg.vector_norm(normal, ord=1 if norm == "Linf" else 2, dim=1)
    torch.testing.assert_close(length(move, norm), offset.abs() / dual)
    torch.testing.assert_close((normal * move).sum(1), -offset)


def test_linf_is_the_linear_programs_optimum() -> None:
    x, normal, offset = planes(30, 12, 5.0)
    moves = move_to_hyperplane(x, normal, offset, "Linf")
    met = 0
    for point, w, gap, move in zip(x.numpy(), normal.numpy(), offset.numpy(), moves, strict=True):
        # Variables: d and t; minimise t with |d_i| <= t, <w, d> = -gap, and x + d in the box.
        eye, ones = np.eye(12), np.ones((12, 1))
        exact = linprog(
            np.r_[np.zeros(12), 1],
            A_ub=np.block([[eye, -ones], [-eye, -ones]]), b_ub=np.zeros(24),
            A_eq=np.r_[w, 0][None], b_eq=[-gap],
            bounds=[*zip(-point, 1 - point, strict=True), (0, None)],
        )  # fmt: skip
        if exact.status == 2:  # infeasible: the corner nearest to the plane
            torch.testing.assert_close(float(w @ move.numpy() + gap), float(np.sign(gap) * corner(point, w, gap)))
            continue
        met += 1
        assert abs(float(move.abs().max()) - exact.fun) < 1e-9
        assert abs(w @ move.numpy() + gap) < 1e-9
    assert 10 <= met < 30, "both a plane that the box reaches and one that it does not"


def corner(point: np.ndarray, w: np.ndarray, gap: float) -> float:
    """How far from the plane its nearest corner of the box is."""
    towards = -np.sign(gap) * w
    return abs(gap) - float(np.where(towards > 0, 1 - point, point) @ abs(w))


def test_l2_is_the_quadratic_programs_optimum() -> None:
    x, normal, offset = planes(12, 8, 1.0)
    moves = move_to_hyperplane(x, normal, offset, "L2")
    for point, w, gap, move in zip(x.numpy(), normal.numpy(), offset.numpy(), moves, strict=True):
        exact = minimize(
            lambda d: d @ d, np.zeros(8), jac=lambda d: 2 * d, method="SLSQP", tol=1e-14,
            bounds=[*zip(-point, 1 - point, strict=True)],
            constraints={"type": "eq", "fun": lambda d, w=w, gap=gap: w @ d + gap, "jac": lambda d, w=w: w},
        )  # fmt: skip
        assert exact.success
        assert float(move.square().sum()) == pytest.approx(exact.fun, rel=1e-6, abs=1e-12)
        assert abs(w @ move.numpy() + gap) < 1e-9


@both_norms
@pytest.mark.parametrize("reach", [0.01, 0.5, 1.0, 3.0])
def test_it_is_the_libraries_projection(norm: Norm, reach: float) -> None:
    x, normal, offset = planes(64, 192, reach, torch.float32)
    theirs = LIBRARY[norm](x, normal, (normal * x).sum(1) - offset)
    torch.testing.assert_close(move_to_hyperplane(x, normal, offset, norm), theirs, atol=2e-5, rtol=1e-4)


@both_norms
@pytest.mark.parametrize("reach", [0.01, 1.0, 30.0])
def test_it_stays_in_the_box_whatever_is_asked(norm: Norm, reach: float) -> None:
    x, normal, offset = planes(40, 75, reach, torch.float32)
    x[:, ::3] = x[:, ::3].round()  # pixels with no room on one side
    moved = x + move_to_hyperplane(x, normal, offset, norm)
    assert moved.min() >= -1e-7
    assert moved.max() <= 1 + 1e-7


@both_norms
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e30])
def test_the_scale_of_a_gradient_does_not_matter(norm: Norm, scale: float) -> None:
    x, normal, offset = planes(20, 50, 0.7, torch.float32)
    expected = move_to_hyperplane(x, normal, offset, norm)
    torch.testing.assert_close(move_to_hyperplane(x, normal * scale, offset * scale, norm), expected)


@both_norms
def test_what_is_no_hyperplane_moves_nothing_and_harms_nobody(norm: Norm) -> None:
    x, normal, offset = planes(5, 30, 0.7, torch.float32)
    alone = move_to_hyperplane(x, normal, offset, norm)
    normal[0] = 0.0
    normal[1] = torch.nan
    offset[2] = torch.nan
    offset[3] = 0.0
    move = move_to_hyperplane(x, normal, offset, norm)
    assert (move[:4] == 0).all()
    torch.testing.assert_close(move[4], alone[4])


@both_norms
def test_gradients_that_are_not_finite_give_finite_moves(norm: Norm) -> None:
    x, normal, offset = planes(3, 30, 0.7, torch.float32)
    normal[0, :3] = torch.tensor([torch.inf, -torch.inf, torch.nan])
    offset[1], offset[2] = torch.inf, -torch.inf
    move = move_to_hyperplane(x, normal, offset, norm)
    assert move.isfinite().all()
    assert ((x + move >= -1e-7) & (x + move <= 1 + 1e-7)).all()
