"""Completeness test: gradients integrated along a straight path must equal the change of the logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from compressor.core.types import Threat
from compressor.evaluation.report import Alarm
from compressor.numerics.ascent import ascend
from compressor.numerics.ball import inside_ball
from compressor.numerics.randomness import derive_seed, make_generator
from compressor.numerics.sampling import random_order
from compressor.numerics.statistics import clopper_pearson
from exporters.claim.evidence import Bits, Floats, Integers
from exporters.file_attacks.attacks import AttackedImages
from exporters.file_attacks.gradients import Gradients
from exporters.file_attacks.target import Target

UNEXPLAINED = 1 / 3
"""The part of a change, or of a promise, that is more than rounding and few points on the way account for."""
UNEXPLAINED_ALLOWED = 0.25
"""The part of the images on whose way more may be unexplained."""
STEP_ALLOWED = 0.02
"""The part of the images that one step may break after all attacks, beyond chance: three of 32 are more."""

_NOTABLE = 0.1  # of an image's lead: where less is promised, and less happens, there is nothing to explain
_IMAGES = 32
_FAR_POINTS, _NEAR_POINTS = 32, 8


@dataclass(frozen=True, eq=False)
class ClassLeads:
    """How far one class leads another on each of n images, with the gradients that an attack follows.

    Attributes:
        gradients: of the file.
        leading: int64 ``[n]``: the right classes.
        trailing: int64 ``[n]``: other ones.
    """

    gradients: Gradients
    leading: Tensor
    trailing: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """``z_leading - z_trailing``, ``[n]``."""
        logits = self.gradients.model(x)
        rows = torch.arange(len(x))
        difference: Tensor = logits[rows, self.leading] - logits[rows, self.trailing]
        return difference

    def mean_gradient(self, start: Tensor, end: Tensor, points: int, generator: Generator) -> Tensor:
        """The mean of the gradients on the straight way, one point drawn from each of its equal parts, as ``start``."""
        total = torch.zeros_like(start)
        for part in range(points):
            place = (part + torch.rand((len(start), 1, 1, 1), generator=generator)) / points
            x = (start + place * (end - start)).requires_grad_()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(self(x).sum(), x)
            total += gradient.nan_to_num(nan=0.0) / points
        return total

    @torch.no_grad()
    def unexplained(self, start: Tensor, end: Tensor, mean_gradient: Tensor) -> Bits:
        r"""On which ways the gradients do not account for the change.

        ``f(b) - f(a) = int_0^1 grad f(a + t (b - a)) . (b - a) dt`` for every f of continuous operators.
        """
        lead = self(start).double()
        changed = self(end).double() - lead
        promised = (mean_gradient.double() * (end - start).double()).flatten(1).sum(1)
        gap, size = (promised - changed).abs(), torch.maximum(promised.abs(), changed.abs())
        # Written so that what is not a number is unexplained.
        explained = (gap <= UNEXPLAINED * size) | (gap <= _NOTABLE * lead.abs())
        return np.asarray(~explained.numpy())


def completeness_alarms(target: Target, gradients: Gradients, attacked: AttackedImages, seed: int) -> list[Alarm]:
    """Alarms where the gradients that the attacks followed are not those of the answers.

    So it is where an answer hangs on a comparison, a position or a table, where it jumps within a hair's breadth, where
    ripples too small to matter drown the slope below them, and where a straight-through gradient belongs to a value
    that does not move. Two paths start at some images that are robust so far: one to a picture that is answered
    otherwise, and one inside the ball along the image's own gradient. The first path also crosses the slope between
    the two answers, however far from it the image is: one step along the mean gradient must not break what the attacks
    did not.

    Args:
        target: decides.
        gradients: what the attacks followed.
        attacked: the images, of which those are examined that no attack broke.
        seed: of the choices and of the points on the ways.
    """
    natural, labels, threat = attacked.images, attacked.labels, attacked.threat
    chosen, ends, answers = _pairs(target, attacked, seed)
    if len(chosen) == 0:
        return []  # the same answer everywhere: there is no way to another
    right = labels[chosen]
    leads = ClassLeads(gradients, torch.from_numpy(right), torch.from_numpy(answers))
    start, generator = torch.from_numpy(natural[chosen]), make_generator(seed, "journeys")
    end = torch.from_numpy(ends)
    far = leads.mean_gradient(start, end, _FAR_POINTS, generator)
    here = leads.mean_gradient(start, start, 1, generator)
    edge = _one_step(start, here, threat, generator)
    near = leads.mean_gradient(start, edge, _NEAR_POINTS, generator)
    found = []
    for way, count in (
        ("to a picture of another class", int(leads.unexplained(start, end, far).sum())),
        ("along themselves", int(leads.unexplained(start, edge, near).sum())),
    ):
        if _exceeds(count, len(chosen), UNEXPLAINED_ALLOWED):
            detail = (
                f"on the way {way}, the gradients do not account for the answers of {count} of {len(chosen)} images"
            )
            found.append(Alarm("unaccounted-answers", detail))
    stepped = _one_step(start, far, threat, generator).numpy()
    broken = int((target.breaks(stepped, right) & inside_ball(stepped, natural[chosen], threat)).sum())
    if _exceeds(broken, len(chosen), STEP_ALLOWED):
        detail = (
            f"one step along the gradients on the way to another class broke {broken} of {len(chosen)} images that "
        )
        found.append(Alarm("slope-out-of-sight", detail + "no attack broke"))
    return found


def _pairs(target: Target, attacked: AttackedImages, seed: int) -> tuple[Integers, Floats, Integers]:
    """Some images robust so far, for each a picture that is answered otherwise, and how: an image, else a negative."""
    natural, labels, robust_so_far = attacked.images, attacked.labels, attacked.robust_so_far
    pictures = np.concatenate([natural, 1 - natural])
    answers = target.session(pictures).argmax(axis=1)
    order = random_order(derive_seed(seed, "destinations"), len(natural))
    chosen = robust_so_far[random_order(derive_seed(seed, "departures"), len(robust_so_far))[:_IMAGES]]
    pairs = []
    for turn, position in enumerate(chosen.tolist()):
        candidates = np.concatenate([np.roll(order, -turn), len(natural) + order])
        other = candidates[answers[candidates] != labels[position]]
        pairs += [(position, int(other[0]))] if len(other) else []
    starts, ends = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T
    return starts, pictures[ends], answers[ends].astype(np.int64)


def _one_step(start: Tensor, gradient: Tensor, threat: Threat, generator: Generator) -> Tensor:
    """The corner of the ball where a lead of this gradient decreases most, ``[n, C, H, W]``."""
    return ascend(
        lambda x, index: -(gradient[index] * x).flatten(1).sum(1),
        start,
        threat,
        generator,
        steps=1,
        step_size=threat.radius,
        start="none",
        early_exit=False,
    )


def _exceeds(count: int, total: int, allowed: float) -> bool:
    return clopper_pearson(count, total, 0.95, "lower")[0] > allowed
