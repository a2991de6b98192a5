"""The evidence played back on onnxruntime, and whether the file answers the same way twice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compressor.core.types import Threat
from compressor.numerics.ball import inside_ball
from compressor.numerics.randomness import derive_seed
from compressor.numerics.sampling import random_below, random_order
from exporters.claim.evidence import Bits, Evidence, Floats, Integers
from exporters.file_attacks.target import Margins, Target, lead

ALLOWED_DISAGREEMENT = 0.01

_ROUNDING = 1e-5  # of a logit's own size: kernels for other batch sizes add in another order
_MOST_ROUNDING = 10  # tolerances: a constant added to all logits must not buy room for more than that
_LARGEST_BATCH = 64
_RUNS = 3


@dataclass(frozen=True)
class Replay:
    """What became of the recorded outcomes.

    Attributes:
        clean: how many images are classified correctly here.
        clean_disagreements: images whose clean outcome is another one here, beyond the slack.
        unbroken: adversarial images that the file gets right, beyond the slack.
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
    margins, slacks = target.judge_again(natural, evidence.labels)
    contrary = np.where(evidence.clean, margins < -slacks, margins > slacks)
    x_adv, index = evidence.adversarial()
    outside = ~inside_ball(x_adv, natural[index], threat)
    leads, slacks = target.judge_again(x_adv, evidence.labels[index])
    unbroken = ~outside & (leads > slacks)
    return Replay(
        clean=int((margins > 0).sum()),
        clean_disagreements=tuple(np.flatnonzero(contrary).tolist()),
        unbroken=tuple(sorted(index[unbroken].tolist())),
        outside=tuple(sorted(index[outside].tolist())),
    )


def find_nondeterministic(images: Floats, target: Target, seed: int) -> tuple[int, ...]:
    """Images whose logits depend on the batch they came in, or on when they were asked for.

    Every image alone; then all of them in another order each time, once in full batches and then in batches of random
    sizes from 2 to 64, which a file that knows some sizes cannot foresee.

    Args:
        images: float32 ``[n, C, H, W]``.
        target: what is asked.
        seed: fixes the orders and the sizes.

    Returns:
        Positions where logits differ by more than the tolerance and their own rounding, or are not finite.
    """
    alone = target.session(images, batch_size=1)
    differs = ~np.isfinite(alone).all(axis=1)
    allowed = _allowed(target, alone)
    for run in range(_RUNS):
        order = random_order(derive_seed(seed, "determinism", run), len(images))
        sizes = _random_sizes(derive_seed(seed, "sizes", run), len(images)) if run else [_LARGEST_BATCH]
        together = np.empty_like(alone)
        together[order] = _in_batches(target, images[order], sizes)
        with np.errstate(invalid="ignore"):
            differs |= ~(np.abs(together - alone) <= allowed).all(axis=1)
    return tuple(np.flatnonzero(differs).tolist())


def find_nondeterministic_leads(target: Target, images: Floats, labels: Integers, leads: Margins) -> Bits:
    """Which images, asked for one by one, have another lead than in the batch of the attack that made them.

    Args:
        target: what is asked.
        images: float32 ``[m, C, H, W]``.
        labels: int64 ``[m]``.
        leads: float64 ``[m]``, as they were in a batch.
    """
    alone = target.session(images, batch_size=1)
    with np.errstate(invalid="ignore"):
        differs = np.abs(lead(alone, labels) - leads) > 2 * _allowed(target, alone).max(axis=1, initial=0.0)
    return np.asarray(differs | (np.isfinite(alone).all(axis=1) != np.isfinite(leads)))


def _allowed(target: Target, logits: Floats) -> Margins:
    """By how much a logit may differ between batches: its image's slack and its own rounding, ``[B, K]``."""
    ties = target.slacks(logits)[:, None]
    return np.asarray(ties + np.fmin(_ROUNDING * np.abs(logits.astype(np.float64)), _MOST_ROUNDING * ties))


def _random_sizes(key: int, n: int) -> list[int]:
    """``n`` batch sizes from 2 to 64, which is more than ``n`` images need."""
    return [int(size) for size in 2 + random_below(key, np.arange(n), _LARGEST_BATCH - 1)]


def _in_batches(target: Target, images: Floats, sizes: list[int]) -> Floats:
    """The logits of ``images`` in batches of these sizes, the last of which is repeated as often as needed."""
    parts: list[Floats] = []
    start = 0
    while start < len(images):
        size = sizes[min(len(parts), len(sizes) - 1)]
        parts.append(target.session(images[start : start + size], batch_size=size))
        start += size
    return np.concatenate(parts)
