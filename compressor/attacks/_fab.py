"""FAB: it walks along the decision boundary towards the image, and so finds errors that are close to it.

Source: Croce and Hein 2020, "Minimally distorted Adversarial Examples with a Fast Adaptive Boundary Attack",
algorithm 1, towards one wrong class at a time as in AutoAttack: the gradient of one difference of logits a step rather
than of all. No start is random.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressor.attacks._projection import move_to_hyperplane
from compressor.attacks._search import frozen_for_attack, likeliest_wrong_classes, misclassifies
from compressor.core.types import Norm, Threat
from compressor.frozen import chunk_of, in_chunks
from compressor.frozen import confirm_misclassified as errs_given
from compressor.numerics.ascent import differentiate
from compressor.numerics.losses import is_wrong, targeted_margin

_MOST_BIAS = 0.1  # alpha_max: how much of a step may go to where the image itself meets the boundary
_OVERSHOOT = 1.05  # eta: a step goes a little beyond the boundary, which is only nearly where its tangent is
_BACK = 0.9  # beta: from an error, this much of the way back to the image
_SHORTEST = 1e-8


def search_ball(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, steps: int, targets: int) -> Tensor:
    """Look for an error within the ball; an image leaves the batch as soon as it has one.

    The model, in eval mode, gets the images ``[B, C, H, W]`` right. Returns the errors, ``x`` where none was found.
    """
    nearest = _Nearest(model, x, y, threat.norm, x.clone(), x.new_full((len(x),), threat.radius))
    robust_so_far = torch.arange(len(x), device=x.device)
    for target in likeliest_wrong_classes(model, x, y, targets).unbind(1):
        robust_so_far = _walk(nearest, robust_so_far, target, steps, one_is_enough=True)
        if len(robust_so_far) == 0:
            break
    return nearest.x_adv


def closest_errors(
    model: nn.Module, x: Tensor, y: Tensor, norm: Norm, *, steps: int, targets: int
) -> tuple[Tensor, Tensor]:
    """The closest errors that FAB finds, and their distances: see ``TargetedFab.closest``."""
    x = x.detach().contiguous()
    with frozen_for_attack(model):
        wrong = misclassifies(model, x, y)
        robust_so_far = torch.nonzero(~wrong).squeeze(1)
        nearest = _Nearest(model, x, y, norm, x.clone(), torch.where(wrong, 0.0, math.inf).to(x))
        if len(robust_so_far) > 0:
            natural, labels = x[robust_so_far], y[robust_so_far]
            ranked = likeliest_wrong_classes(model, natural, labels, targets)
            target = torch.zeros_like(y)
            for classes in ranked.unbind(1):
                target[robust_so_far] = classes
                _walk(nearest, robust_so_far, target, steps, one_is_enough=False)
    return nearest.x_adv, nearest.distance


@dataclass(eq=False)
class _Nearest:
    """The closest confirmed error of each image.

    Attributes:
        model: what is attacked.
        x: images ``[B, C, H, W]``.
        y: labels ``[B]``.
        norm: how distance is measured.
        x_adv: the errors, ``x`` while there is none.
        distance: how far they are; while there is none, how far one may be, ``[B]``.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    norm: Norm
    x_adv: Tensor
    distance: Tensor

    def offer(self, index: Tensor, points: Tensor, logits: Tensor) -> Tensor:
        """Take what is closer and an error, of points ``[b, C, H, W]`` for the images ``index``; which, bool ``[b]``.

        The model that decides is asked about no point that would be too far away to be taken.
        """
        distance = _length(points - self.x[index], self.norm)
        taken = distance <= self.distance[index]
        near = torch.nonzero(taken).squeeze(1)
        if len(near) > 0:
            taken[near] = errs_given(self.model, points[near], self.y[index[near]], logits[near])
            self.x_adv[index[taken]] = points[taken]
            self.distance[index[taken]] = distance[taken]
        return taken


def _walk(nearest: _Nearest, index: Tensor, target: Tensor, steps: int, *, one_is_enough: bool) -> Tensor:
    """Offer every point of the walks of the images ``index`` towards their targets; returns who is left, ``[b]``."""
    model, chunk = nearest.model, chunk_of(nearest.model)
    natural, labels, classes = nearest.x[index], nearest.y[index], target[index]
    point = natural
    for _ in range(steps):
        lead, gradient = _differentiate_lead(model, point, labels, classes, chunk)
        point = _step(point, natural, lead, gradient, nearest.norm)
        logits = in_chunks(model, point, chunk)
        taken = nearest.offer(index, point, logits)
        beyond = is_wrong(logits, labels).view(-1, 1, 1, 1)
        point = torch.where(beyond, natural + _BACK * (point - natural), point)
        if one_is_enough and bool(taken.any()):
            left = ~taken
            index, natural, labels, classes, point = (rows[left] for rows in (index, natural, labels, classes, point))
            if len(index) == 0:
                break
    return index


def _differentiate_lead(
    model: nn.Module, x: Tensor, y: Tensor, target: Tensor, chunk: int | None
) -> tuple[Tensor, Tensor]:
    """By how much the target beats the right class, ``[b]``, and the gradient of that, ``[b, C, H, W]``."""

    def lead(x_adv: Tensor, index: Tensor) -> Tensor:
        return targeted_margin(model(x_adv), y[index], target[index])

    return differentiate(lead, x, torch.arange(len(x), device=x.device), chunk or len(x))


def _step(x_adv: Tensor, x: Tensor, lead: Tensor, gradient: Tensor, norm: Norm) -> Tensor:
    """To the boundary's tangent from where the walk is, and a little towards where the image itself would meet it.

    ``clip_[0,1]((1 - a) (x_adv + eta d) + a (x + eta d_0))``, ``a = min(||d|| / (||d|| + ||d_0||), alpha_max)``
    """
    here, home, normal = x_adv.flatten(1), x.flatten(1), gradient.flatten(1)
    # The tangent's offset is the lead itself here; from the image it differs by the way between the two.
    offset = lead + (normal * (home - here)).sum(1)
    move = move_to_hyperplane(here, normal, lead, norm).view_as(x)
    move_from_image = move_to_hyperplane(home, normal, offset, norm).view_as(x)
    length = _length(move, norm).clamp_min(_SHORTEST)
    length_from_image = _length(move_from_image, norm).clamp_min(_SHORTEST)
    bias = (length / (length + length_from_image)).clamp_max(_MOST_BIAS).view(-1, 1, 1, 1)
    return ((1 - bias) * (x_adv + _OVERSHOOT * move) + bias * (x + _OVERSHOOT * move_from_image)).clamp(0.0, 1.0)


def _length(move: Tensor, norm: Norm) -> Tensor:
    """``||move||``, ``[b]``."""
    order = math.inf if norm == "Linf" else 2
    length: Tensor = torch.linalg.vector_norm(move, ord=order, dim=(1, 2, 3))
    return length
