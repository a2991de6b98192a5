"""More than one number: what the bits and the predictions of an evaluation say of columns, stages and classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.bool_]
Classes = NDArray[np.int64]


def unique_successes(clean: Bits, attacks: Mapping[str, Bits]) -> dict[str, int]:
    """How many images each column broke that no other column did.

    Args:
        clean: bool ``[N]``: right on the natural image.
        attacks: column name to bool ``[N]``: right also under this attack, whatever the others did.

    Returns:
        Column name to a number of images.
    """
    breakers = sum((clean & ~bits for bits in attacks.values()), np.zeros(len(clean), dtype=np.int64))
    return {name: int((clean & ~bits & (breakers == 1)).sum()) for name, bits in attacks.items()}


def cascade_successes(clean: Bits, attacks: Mapping[str, Bits]) -> dict[str, int]:
    """How many images that were robust so far each column broke: for bits that are cumulative.

    Args:
        clean: bool ``[N]``: right on the natural image.
        attacks: column name to bool ``[N]``: right under this attack and all before it.

    Returns:
        Column name to a number of images; they add up to all that were broken.
    """
    counts, robust_so_far = {}, clean
    for name, bits in attacks.items():
        counts[name] = int((robust_so_far & ~bits).sum())
        robust_so_far = robust_so_far & bits
    return counts


def stage_counts(stages: Sequence[str], broken_by: Classes) -> dict[str, int]:
    """How many images each stage of a column broke.

    Args:
        stages: their names.
        broken_by: int ``[N]``: the number of the stage that broke each image; -1 where none did.
    """
    return {name: int((broken_by == number).sum()) for number, name in enumerate(stages)}


def worst_case_predictions(clean: Bits, attacks: Mapping[str, Bits], predictions: Mapping[str, Classes]) -> Classes:
    """What the model says of each image in the worst case.

    That is what it says of the natural image where it is wrong there, or where no attack broke it; else what it says
    under the first column that broke it.

    Args:
        clean: bool ``[N]``: right on the natural image.
        attacks: column name to bool ``[N]``: right also under this attack.
        predictions: column name (``clean`` too) to int ``[N]``.

    Returns:
        int ``[N]``.
    """
    predicted, undecided = predictions["clean"].copy(), clean.copy()
    for name, bits in attacks.items():
        newly_broken = undecided & ~bits
        predicted[newly_broken] = predictions[name][newly_broken]
        undecided &= bits
    return predicted


def class_table(labels: Classes, clean: Bits, robust: Bits) -> list[dict[str, int]]:
    """For each class that occurs: its images, and how many of them are right, unattacked and in the worst case.

    Args:
        labels: int ``[N]``.
        clean: bool ``[N]``.
        robust: bool ``[N]``.
    """
    return [
        {
            "class": int(label),
            "images": int((labels == label).sum()),
            "clean_correct": int(clean[labels == label].sum()),
            "robust": int(robust[labels == label].sum()),
        }
        for label in np.unique(labels)
    ]


def confusion_counts(labels: Classes, predicted: Classes) -> dict[str, dict[str, int]]:
    """How many images of each right class the model takes for each class; pairs that do not occur are left out.

    Args:
        labels: int ``[N]``.
        predicted: int ``[N]``; -1 where the model names no class.

    Returns:
        Right class to (class that the model names to a number of images), both as text, as JSON has its keys.
    """
    counts: dict[str, dict[str, Any]] = {}
    pairs, numbers = np.unique(np.stack([labels, predicted], axis=1), axis=0, return_counts=True)
    for (right, named), number in zip(pairs.tolist(), numbers.tolist(), strict=True):
        counts.setdefault(str(right), {})[str(named)] = number
    return counts
