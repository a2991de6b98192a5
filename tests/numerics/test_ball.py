"""Which images lie in the ball: exact at its edge for Linf, and for L2 as exact as a projection in float32 can be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compressor.core.types import Threat
from compressor.numerics.ascent import project
from compressor.numerics.ball import inside_ball


def test_linf_ball_is_exact_at_its_edge() -> None:
    threat = Threat("Linf", "8/255")
    x = (np.arange(256) / np.float32(255)).astype(np.float32).reshape(-1, 1, 1, 1)
    eps = np.float32(threat.radius)
    edge = np.minimum(x + eps, np.float32(1))
    assert inside_ball(edge, x, threat).all()
    beyond = np.nextafter(edge, np.float32(2), dtype=np.float32)
    assert not inside_ball(beyond, x, threat).any()
    below = np.nextafter(np.maximum(x - eps, np.float32(0)), np.float32(-1), dtype=np.float32)
    assert not inside_ball(below, x, threat).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_what_is_no_number_lies_in_no_ball(value: float, norm: str) -> None:
    x = np.full((1, 1, 2, 2), 0.5, np.float32)
    x_adv = x.copy()
    x_adv[0, 0, 0, 0] = value
    assert not inside_ball(x_adv, x, Threat(norm, "1")).any()  # type: ignore[arg-type]


def test_l2_ball() -> None:
    x = np.full((2, 1, 2, 2), 0.5, np.float32)
    x_adv = x.copy()
    x_adv[0, 0, 0, 0] += 0.2
    x_adv[1, 0, 0, 0] += 0.21
    assert inside_ball(x_adv, x, Threat("L2", "0.2")).tolist() == [True, False]


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("eps", ["0.0001", "0.002", "8/255", "0.5"])
def test_what_was_projected_lies_inside_however_small_the_ball(norm: str, eps: str) -> None:
    threat = Threat(norm, eps)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(500, 3, 16, 16, generator=generator)
    x_adv = project(x + torch.randn(x.shape, generator=generator), x, threat)
    assert inside_ball(x_adv.numpy(), x.numpy(), threat).all()
    further = (x + 1.01 * (x_adv - x)).numpy()
    moved = ((further >= 0) & (further <= 1)).all(axis=(1, 2, 3))
    assert not inside_ball(further[moved], x.numpy()[moved], threat).any()
