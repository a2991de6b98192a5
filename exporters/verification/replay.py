"""Step 3: the evidence played back on onnxruntime, and step 4: whether the file answers the same way twice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compressor.randomness import derive_seed
from compressor.sampling import random_order
from compressor.types import Threat
from exporters.evidence import Evidence, inside_ball
from exporters.verification.target import Target

ALLOWED_DISAGREEMENT = 0.01

_ROUNDING = 1e-5  # of a logit's own size: kernels for other batch sizes add in another order


@dataclass(frozen=True)
class Replay:
    """What became of the recorded outcomes.

    Attributes:
        clean: how many images are classified correctly here.
        clean_disagreements: images whose clean outcome is another one here, beyond the tolerance.
        unbroken: adversarial images that the file gets right, beyond the tolerance.
        outside: adversarial images that do not lie in the ball: no numerics explain that.
    """

    clean: int
    clean_disagreements: tuple[int, ...]
    unbroken: tuple[int, ...]
    outside: tuple[int, ...]

    def agrees(self, n: int) -> bool:
        """Whether at most one image in a hundred came out differently."""
        return len({*self.clean_disagreements, *self.unbroken}) <= ALLOWED_DISAGREEMENT * n


def replay(evidence: Evidence, target: Target, threat: Threat) -> Replay:
    """Classify every image and every adversarial image of the evidence again."""
    natural = evidence.natural()
    margins, tolerances = target.judge(natural, evidence.labels)
    contrary = np.where(evidence.clean, margins < -tolerances, margins > tolerances)
    x_adv, index = evidence.adversarial()
    outside = ~inside_ball(x_adv, natural[index], threat)
    leads, ties = target.judge(x_adv, evidence.labels[index])
    unbroken = ~outside & (leads > ties)
    return Replay(
        clean=int((margins > 0).sum()),
        clean_disagreements=tuple(np.flatnonzero(contrary).tolist()),
        unbroken=tuple(sorted(index[unbroken].tolist())),
        outside=tuple(sorted(index[outside].tolist())),
    )


def unsteady(evidence: Evidence, target: Target, seed: int) -> tuple[int, ...]:
    """Images whose logits depend on the batch they came in, or on when they were asked for.

    Every image alone, then all of them twice, in batches of another order each time.

    Args:
        evidence: the images.
        target: what is asked.
        seed: fixes the two orders.

    Returns:
        Positions where logits differ by more than the tolerance and their own rounding, or are not finite.
    """
    images = evidence.natural()
    alone = target.session(images, batch_size=1)
    differs = ~np.isfinite(alone).all(axis=1)
    for run in range(2):
        order = random_order(derive_seed(seed, "determinism", run), len(images))
        together = np.empty_like(alone)
        together[order] = target.session(images[order])
        with np.errstate(invalid="ignore"):
            differs |= ~(np.abs(together - alone) <= target.tolerance + _ROUNDING * np.abs(alone)).all(axis=1)
    return tuple(np.flatnonzero(differs).tolist())
