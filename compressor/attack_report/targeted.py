"""Whether the model can be made to say a chosen class: targeted PGD, for pairs of right class and target."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from compressor.attack_report.subject import AttackedSample
from compressor.core.types import Threat
from compressor.frozen import chunk_of
from compressor.models.modes import module_mode
from compressor.numerics.ascent import ascend
from compressor.numerics.losses import cross_entropy, is_wrong
from compressor.numerics.randomness import derive_seed
from compressor.numerics.sampling import random_order

TARGETED_STEPS = 20
STEP_OF_EPS = 0.25
LARGEST_ATTEMPTS = 1024

Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Targeted:
    """Attempts at making the model say a target, and successes.

    Attributes:
        attempts: int64 ``[K, K]``: by right class (row) and target (column); 0 on the diagonal.
        successes: int64 ``[K, K]``: how many of them ended with the model saying the target.
    """

    attempts: Indices
    successes: Indices

    @property
    def rate(self) -> float:
        """The fraction of attempts that succeeded."""
        return int(self.successes.sum()) / max(1, int(self.attempts.sum()))


def targeted_successes(subject: AttackedSample, threat: Threat) -> Targeted:
    """Attack towards targets by 20 PGD steps on the target's cross-entropy."""
    labels = subject.y.cpu().numpy()
    key = derive_seed(subject.seed, "attack report", "pairs")
    images, targets = choose_attempts(labels, subject.classes, LARGEST_ATTEMPTS, key)
    attempts = np.zeros((subject.classes, subject.classes), dtype=np.int64)
    successes = np.zeros_like(attempts)
    for piece, generator in _pieces(subject, len(images)):
        index, goal = images[piece], targets[piece]
        predicted = _says_target(
            subject, subject.x[index], torch.from_numpy(goal).to(subject.y.device), threat, generator
        )
        np.add.at(attempts, (labels[index], goal), 1)
        np.add.at(successes, (labels[index], goal), predicted.cpu().numpy().astype(np.int64))
    return Targeted(attempts, successes)


def choose_attempts(labels: Indices, classes: int, most: int, key: int) -> tuple[Indices, Indices]:
    """Images and targets to try, as even over the pairs of classes as the images allow.

    The pairs take turns, in a random order that is drawn anew for each turn; in each turn a pair tries another image of
    its class, and the pairs of one class begin with different images.

    Args:
        labels: of the images, ``[n]``.
        classes: K.
        most: how many attempts at most.
        key: names the order.

    Returns:
        Positions of images and their targets, both int64 ``[m]``; no combination twice.
    """
    by_class = [np.flatnonzero(labels == k) for k in range(classes)]
    pairs = [(c, t) for c in range(classes) if len(by_class[c]) for t in range(classes) if t != c]
    chosen: list[tuple[int, int]] = []
    for turn in range(max(len(images) for images in by_class)):
        order = random_order(key + turn, len(pairs))
        for c, t in (pairs[place] for place in order):
            images = by_class[c]
            if turn < len(images) and len(chosen) < most:
                chosen.append((int(images[(t + turn) % len(images)]), t))
    return np.array([image for image, _ in chosen]), np.array([target for _, target in chosen])


def _pieces(subject: AttackedSample, total: int) -> Iterator[tuple[slice, Generator]]:
    part = "targeted PGD"
    subject.on_progress(part, 0, total)
    for start in range(0, total, subject.batch_size):
        yield slice(start, start + subject.batch_size), subject.generator(part, str(start))
        subject.on_progress(part, min(start + subject.batch_size, total), total)


def _says_target(subject: AttackedSample, x: Tensor, targets: Tensor, threat: Threat, generator: Generator) -> Tensor:
    """Whether the model itself says the target of each image at the end of an attack, bool ``[B]``."""

    def objective(x_adv: Tensor, index: Tensor) -> Tensor:
        logits = subject.attacked(x_adv)
        missed = is_wrong(logits, targets[index])
        return torch.where(missed, -cross_entropy(logits, targets[index]), torch.inf)

    with module_mode(subject.attacked, training=False):
        x_adv = ascend(
            objective,
            x,
            threat,
            generator,
            steps=TARGETED_STEPS,
            step_size=STEP_OF_EPS * threat.radius,
            chunk=chunk_of(subject.attacked),
        )
    return ~is_wrong(subject.logits(x_adv), targets)
