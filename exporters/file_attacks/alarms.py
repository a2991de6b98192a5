"""Signs that the attacks failed because of masked gradients, so that their failure proves nothing."""

from __future__ import annotations

import numpy as np
import torch

from compressor.core.types import Threat
from compressor.evaluation.chance import WEAKER_ADVANTAGE_ALLOWED, rate_exceeds
from compressor.evaluation.report import Alarm
from compressor.numerics.ascent import draw_corners
from compressor.numerics.losses import cw_margin
from compressor.numerics.randomness import derive_seed, make_generator
from compressor.numerics.sampling import random_order
from exporters.claim.evidence import Floats, Integers
from exporters.file_attacks.attacks import FGSM, SQUARE, AttackedImages, AttackOutcome, Attempt, run_attempts
from exporters.file_attacks.gradients import Gradients
from exporters.file_attacks.random_images import draw_in_ball
from exporters.file_attacks.target import Margins, Target
from exporters.file_attacks.white_box import WhiteBox

_HALF = Threat("Linf", "0.5")
_HALF_IMAGES = 16
_BATCH = 64


def gradient_reach(gradients: Gradients, images: Floats, labels: Integers) -> Margins:
    r"""How far each image's gradient reaches: ``||grad lead||_1 / |lead|``, float64 ``[B]``; 0 where it is not finite.

    To first order a change of ``1 / reach`` in every pixel undoes the lead. Below 1 not even the change from black to
    white would, so such a gradient belongs to a saturated output, whatever decoy was added to it.
    """
    found = []
    for start in range(0, len(images), _BATCH):
        x = torch.from_numpy(images[start : start + _BATCH]).requires_grad_()
        with torch.enable_grad():
            margin = cw_margin(gradients.model(x), torch.from_numpy(labels[start : start + _BATCH]))
            (gradient,) = torch.autograd.grad(margin.sum(), x)
        length = gradient.double().abs().flatten(1).sum(1)
        reach = torch.where(length > 0, length / margin.detach().double().abs(), 0.0)
        found.append(reach.nan_to_num(nan=0.0, posinf=torch.inf).numpy())
    return np.concatenate(found) if found else np.zeros(0)


def weaker_attack_alarms(outcome: AttackOutcome) -> list[Alarm]:
    """Attacks that broke images on which a stronger attack had failed, beyond chance.

    The suite runs its attacks from the strongest to the weakest, so whatever Square or FGSM broke is such an image.
    """
    total = len(outcome.broken)
    found = []
    for attack, name, meaning in (
        (FGSM, "more-steps-weaker", "fewer steps beat more steps"),
        (SQUARE, "square-beats-white-box", "Square beat every white-box attack"),
    ):
        count = outcome.counts.get(attack, 0)
        if rate_exceeds(count, total, WEAKER_ADVANTAGE_ALLOWED):
            found.append(Alarm(name, f"{meaning}: it broke {count} of {total} images on which they had failed"))
    return found


def tie_signs(outcome: AttackOutcome, by_format: float = 0.0) -> list[str]:
    """Signs that images are robust only because the file ties, or nearly ties, on a picture that an attack found.

    Args:
        outcome: of the attacks.
        by_format: the part of the images of which that is no sign.
    """
    count, total = int(outcome.near_ties.sum()), len(outcome.near_ties)
    if not rate_exceeds(count, total, max(WEAKER_ADVANTAGE_ALLOWED, by_format)):
        return []
    return [
        f"{count} of {total} images are robust by a tie only: the right class neither leads nor trails beyond doubt"
    ]


def file_predicts_one_class(target: Target, attacked: AttackedImages, seed: int) -> bool:
    """Whether the file gives everything the same class, beyond doubt: nothing can break such a classifier.

    Asked for the images, random and extreme changes of them inside the ball, what the attacks made, and noise. Where
    more than half of the images are of that class, the exporter may have chosen them so, and the answer is no.

    Args:
        target: what is asked.
        attacked: the images, and what the attacks made of them.
        seed: of the changes and the noise.
    """
    images, labels, threat = attacked.images, attacked.labels, attacked.threat
    common = int(target.session(images[:1]).argmax())
    if 2 * int((labels == common).sum()) > len(labels):
        return False
    noise = torch.rand((_BATCH, *images.shape[1:]), generator=make_generator(seed, "noise")).numpy()
    corners = draw_corners(torch.from_numpy(images), threat, make_generator(seed, "signs")).numpy()
    asked = np.concatenate([images, draw_in_ball(images, threat, seed), corners, attacked.outcome.x_adv, noise])
    leads, ties = target.judge(asked, np.full(len(asked), common))
    return bool((leads > ties).all())


def count_robust_at_half_range(
    target: Target, gradients: Gradients, images: Floats, labels: Integers, seed: int
) -> tuple[int, int]:
    """How many images seem robust at eps = 0.5, where none can be, out of how many that were tried.

    The ball of every image holds the uniformly grey picture and much of every other image, so a robust
    image means that gradients are masked, unless the file answers everything alike.
    """
    chosen = random_order(derive_seed(seed, "half range"), len(images))[:_HALF_IMAGES]
    images, labels = images[chosen], labels[chosen]
    tolerance = gradients.tolerance
    attempts = [
        Attempt("half range", WhiteBox("cw_margin", step=0.1, tolerance=tolerance), gradients.model),
        Attempt("half range again", WhiteBox("cross_entropy", 40, 0.1, tolerance), gradients.model),
    ]
    outcome = run_attempts(attempts, target, images, labels, _HALF, seed=seed)
    return int((~outcome.broken).sum()), len(images)
