"""A few broken images, drawn and not picked: natural, adversarial, and what the model says of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.attack_report.subject import AttackedSample
from compressor.core.contracts import Attack, Ensemble
from compressor.evaluation.report import Report
from compressor.numerics.augment import floats_on_host
from compressor.numerics.randomness import derive_seed
from compressor.numerics.sampling import balanced_indices

MAX_EXAMPLES = 8


@dataclass(frozen=True)
class Prediction:
    """What the model says of an image: a class, and its softmax probability."""

    label: int
    confidence: float


@dataclass(frozen=True, eq=False)
class Example:
    """A broken image.

    Attributes:
        position: among the evaluated images.
        column: the attack that made it.
        label: the right class.
        natural: float32 ``[C, H, W]`` in [0, 1].
        adversarial: float32 ``[C, H, W]`` in [0, 1].
        before: what the model says of the natural image.
        after: what it says of the adversarial one.
    """

    position: int
    column: str
    label: int
    natural: NDArray[np.float32]
    adversarial: NDArray[np.float32]
    before: Prediction
    after: Prediction


def choose_examples(report: Report, most: int = MAX_EXAMPLES) -> list[tuple[int, str]]:
    """Broken images to show, with the first column that broke each.

    They are drawn by seed, evenly over the classes, from the images that the model gets right unattacked and wrong in
    the worst case: nobody chose them for what they look like.

    Returns:
        Positions, ascending, with column names.
    """
    broken = np.flatnonzero(report.clean & ~report.robust)
    drawn = broken[balanced_indices(report.labels[broken], most, derive_seed(report.seed, "attack report", "gallery"))]
    return [(int(i), next(name for name, right in report.attacks.items() if not right[i])) for i in drawn]


def make_examples(
    subject: AttackedSample,
    images: NDArray[np.uint8],
    report: Report,
    attacks: Mapping[str, Attack],
    chosen: list[tuple[int, str]],
) -> tuple[Example, ...]:
    """Attack the chosen images once more, each with the attack that broke it.

    An evaluation need not keep its adversarial images; these are made afresh, with noise of their own, and where one
    does not break its image this time, that image is left out.

    Args:
        subject: the model.
        images: all that were evaluated, uint8 ``[N, C, H, W]``.
        report: of the evaluation.
        attacks: by column name.
        chosen: from ``choose_examples``.
    """
    examples: list[Example] = []
    part = "gallery"
    subject.on_progress(part, 0, len(chosen))
    for column in dict.fromkeys(column for _, column in chosen):
        positions = [position for position, broken_by in chosen if broken_by == column]
        x = floats_on_host(images[positions]).to(subject.x.device)
        y = torch.from_numpy(report.labels[positions]).to(subject.y.device)
        attack, generator = attacks[column], subject.generator(part, column)
        # A reference is only one on the model itself.
        is_reference = isinstance(attack, Ensemble) and attack.is_reference
        found = attack(subject.model if is_reference else subject.attacked, x, y, report.threat, generator)
        shown = _compare(subject, column, positions, x, y, found.x_adv)
        examples += [example for example in shown if example.after.label != example.label]
        subject.on_progress(part, min(len(chosen), len(examples)), len(chosen))
    return tuple(sorted(examples, key=lambda example: example.position))


def _compare(
    subject: AttackedSample, column: str, positions: list[int], x: Tensor, y: Tensor, x_adv: Tensor
) -> list[Example]:
    before, after = _answers(subject, x), _answers(subject, x_adv)
    return [
        Example(position, column, int(y[i]), x[i].cpu().numpy(), x_adv[i].detach().cpu().numpy(), before[i], after[i])
        for i, position in enumerate(positions)
    ]


def _answers(subject: AttackedSample, x: Tensor) -> list[Prediction]:
    confidence, label = subject.logits(x).float().softmax(1).max(1)
    return [Prediction(int(k), float(p)) for k, p in zip(label, confidence, strict=True)]


def largest_change(examples: tuple[Example, ...]) -> float:
    """The largest change of any pixel value among the examples; what their perturbations are scaled by."""
    return max(float(np.abs(example.adversarial - example.natural).max()) for example in examples)
