"""What a check asks of the sample where the suite itself does not tell: short attacks, and extreme pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from compressor.core.types import Threat
from compressor.evaluation.alarms._contract import ExaminedEvaluation
from compressor.evaluation.report import Bits
from compressor.evaluation.suites import SuiteColumn
from compressor.numerics.ascent import draw_corners
from compressor.numerics.randomness import make_generator

_SMALLEST = 1e-15  # what a radius can be written with


def robust_against(
    examined: ExaminedEvaluation, threat: Threat, attack: str, settings: Mapping[str, Any], *, among: Bits | None = None
) -> Bits:
    """Which images of the sample the model gets right, and still does after an attack, bool ``[n]``.

    Args:
        examined: the sample.
        threat: the ball.
        attack: a member of the attacks room.
        settings: its fields.
        among: bool ``[n]``: the only images to attack; all others count as broken.
    """
    search = SuiteColumn(attack, attack, settings).build()
    robust = examined.right.cpu().numpy().copy()
    if among is not None:
        robust &= among
    places = np.flatnonzero(robust)
    for start in range(0, len(places), examined.batch_size):
        part = places[start : start + examined.batch_size]
        rows = torch.from_numpy(part).to(examined.x.device)
        generator = make_generator(examined.seed, "alarm", attack, start)
        found = search(examined.attacked, examined.x[rows], examined.y[rows], threat, generator)
        robust[part] = ~found.broken.cpu().numpy()
    return robust


def scaled_threat(threat: Threat, factor: float) -> Threat:
    """A ball of ``factor`` times the radius; for Linf at most 1, which holds every image."""
    radius = max(_SMALLEST, threat.radius * factor)
    return Threat(threat.norm, f"{min(1.0, radius) if threat.norm == 'Linf' else min(1000.0, radius):.15f}")


def predicts_one_class(examined: ExaminedEvaluation) -> bool:
    """Whether the model gives one class to the sample, to extreme changes of it, to noise, and to grey.

    Where most of the sample is of that class the answers show little, and it is no.
    """
    decided = examined.logits.argmax(1)
    common = decided[0]
    if bool((decided != common).any()) or 2 * int((examined.y == common).sum()) > len(examined.y):
        return False
    generator = make_generator(examined.seed, "alarm", "one class")
    corners = draw_corners(examined.x, examined.threat, generator)
    noise = torch.rand(examined.x.shape, generator=generator).to(examined.x.device)
    grey = torch.full_like(examined.x[:1], 0.5)
    return bool((examined.ask(torch.cat([corners, noise, grey])).argmax(1) == common).all())
