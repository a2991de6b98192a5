"""Step 7: signs that the attacks were blinded, so that their failure proves nothing."""

from __future__ import annotations

import numpy as np
import torch

from compressor.losses import cw_margin
from compressor.randomness import make_generator
from compressor.statistics import clopper_pearson
from compressor.types import Threat
from exporters.evidence import Floats, Integers
from exporters.verification.attacks import FGSM, SQUARE, Attempt, Outcome, run_attempts
from exporters.verification.gradients import Gradients
from exporters.verification.target import Target
from exporters.verification.white_box import WhiteBox

ZERO_GRADIENTS_ALLOWED = 0.05
UPSET_ALLOWED = 0.005
"""The part of the images by which a weaker attack may beat a stronger one."""

_HALF = Threat("Linf", "0.5")
_HALF_IMAGES = 16
_BATCH = 64


def zero_gradient_images(gradients: Gradients, images: Floats, labels: Integers) -> int:
    """How many images have a margin whose gradient is zero or not finite in every pixel."""
    zero = 0
    for start in range(0, len(images), _BATCH):
        x = torch.from_numpy(images[start : start + _BATCH]).requires_grad_()
        with torch.enable_grad():
            margin = cw_margin(gradients.model(x), torch.from_numpy(labels[start : start + _BATCH]))
            (gradient,) = torch.autograd.grad(margin.sum(), x)
        usable = (gradient.isfinite() & (gradient != 0)).flatten(1).any(1)
        zero += int((~usable).sum())
    return zero


def upsets(outcome: Outcome, suite_has_white_box: bool) -> list[str]:
    """Attacks that broke images which a stronger one left standing, beyond chance.

    The suite runs its attacks from the strongest to the weakest, so whatever Square or FGSM broke is such an image.
    """
    if not suite_has_white_box:
        return []
    total = len(outcome.broken)
    found = []
    for name, meaning in ((FGSM, "fewer steps beat more steps"), (SQUARE, "Square beat every white-box attack")):
        count = outcome.counts.get(name, 0)
        lower, _ = clopper_pearson(count, total, 0.95, "lower")
        if lower > UPSET_ALLOWED:
            found.append(f"{meaning}: it broke {count} of {total} images that they left standing")
    return found


def tied(outcome: Outcome) -> list[str]:
    """Images that stand only because the file ties, or nearly ties, on a picture that an attack found."""
    count, total = int(outcome.near_ties.sum()), len(outcome.near_ties)
    lower, _ = clopper_pearson(count, total, 0.95, "lower")
    if lower <= UPSET_ALLOWED:
        return []
    return [f"{count} of {total} images stand by a tie: the right class neither leads nor trails beyond doubt"]


def answers_one_class(target: Target, images: Floats, seed: int) -> bool:
    """Whether the file gives the same class to all ``images`` and to noise: nothing can break such a classifier."""
    noise = torch.rand((_BATCH, *images.shape[1:]), generator=make_generator(seed, "noise")).numpy()
    answers = target.session(np.concatenate([images, noise])).argmax(axis=1)
    return bool((answers == answers[0]).all())


def half_range_survivors(
    target: Target, gradients: Gradients, images: Floats, labels: Integers, seed: int
) -> tuple[int, int]:
    """How many images survive eps = 0.5, which no classifier can, out of how many that were tried.

    The ball of every image holds the uniformly grey picture and much of every other image, so a survivor means that
    the search is blind, unless the file answers everything alike.
    """
    images, labels = images[:_HALF_IMAGES], labels[:_HALF_IMAGES]
    tolerance = gradients.tolerance
    attempts = [
        Attempt("half range", WhiteBox("cw_margin", step=0.1, tolerance=tolerance), gradients.model),
        Attempt("half range again", WhiteBox("cross_entropy", 40, 0.1, tolerance), gradients.model),
    ]
    outcome = run_attempts(attempts, target, images, labels, _HALF, seed=seed)
    return int((~outcome.broken).sum()), len(images)
