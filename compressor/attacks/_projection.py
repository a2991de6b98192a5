"""The shortest way onto a hyperplane that stays inside [0, 1]: what FAB does twice a step."""

from __future__ import annotations

import torch
from torch import Tensor

from compressor.core.types import Norm


def move_to_hyperplane(x: Tensor, normal: Tensor, offset: Tensor, norm: Norm) -> Tensor:
    r"""The shortest move from points of the box to a hyperplane.

    ``argmin_d ||d||`` such that ``<w, x + d> = b`` and ``0 <= x + d <= 1``, with ``<w, x> - b`` given.

    Its solution moves each coordinate against the offset until it meets the box: ``|d_i| = min(t s_i, room_i)`` with
    one ``t`` for all, and ``s_i = 1`` for Linf, ``|w_i|`` for L2.

    Args:
        x: points ``[B, D]`` in [0, 1].
        normal: w, ``[B, D]``; where it is zero or NaN, a coordinate does not move.
        offset: ``<w, x> - b``, ``[B]``: on which side of the hyperplane a point is, and how far.
        norm: what is shortest.

    Returns:
        d, ``[B, D]``. Where the box does not reach the hyperplane, the way to the corner nearest to it.

    Source: Croce and Hein 2020, "Minimally distorted Adversarial Examples with a Fast Adaptive Boundary Attack",
    eq. 3 and its supplement; solved here by Newton's method, which sorts nothing.
    """
    normal = normal.nan_to_num(nan=0.0)
    # Gradients may be so small, or so large, that their squares are not numbers: only their proportions matter.
    largest = normal.abs().amax(1).clamp_min(torch.finfo(normal.dtype).tiny)
    weight = normal / largest.unsqueeze(1)
    gap = (offset / largest).nan_to_num(nan=0.0)
    direction = -weight.sign() * gap.sign().unsqueeze(1)
    room = torch.where(direction > 0, 1 - x, x)
    weight = weight.abs()
    speed = weight.new_ones(1, 1) if norm == "Linf" else weight
    time = _time_to_cover(gap.abs(), weight, speed, room)
    return direction * torch.minimum(speed * time.unsqueeze(1), room)


def _time_to_cover(gap: Tensor, weight: Tensor, speed: Tensor, room: Tensor) -> Tensor:
    """The t ``[B]`` at which ``sum_i w_i min(t s_i, room_i)`` reaches the gap; the largest number where it never does.

    The sum is concave and piecewise linear in t: Newton's method approaches from the left without ever going too far,
    and is exact once it is on the last piece.
    """
    rate, capacity = weight * speed, weight * room
    limits = torch.finfo(gap.dtype)
    time = (gap / rate.sum(1).clamp_min(limits.tiny)).clamp_max(limits.max)
    while True:
        stopped = speed * time.unsqueeze(1) >= room
        covered = torch.where(stopped, capacity, 0.0).sum(1)
        moving = rate.masked_fill(stopped, 0.0).sum(1)
        following = torch.where(moving > 0, (gap - covered) / moving, limits.max).clamp_max(limits.max)
        # With the same coordinates moving it is the same number again, and they only ever become fewer: this ends.
        if not bool((following > time).any()):
            return time
        time = torch.maximum(time, following)
