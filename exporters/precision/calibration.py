"""The images that scales are measured on: training images, natural and attacked, since attacked ones reach further."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from compressor.ascent import ascend
from compressor.augment import to_float
from compressor.contracts import Dataset
from compressor.errors import UsageError
from compressor.losses import cross_entropy
from compressor.modes import module_mode
from compressor.randomness import derive_seed, make_generator
from compressor.sampling import random_order
from compressor.types import Threat
from exporters.runtime import Images

CALIBRATION_IMAGES = 128
_STEPS = 10
_BATCH = 64


def calibration_images(
    classifier: nn.Module, dataset: Dataset, threat: Threat, *, count: int = CALIBRATION_IMAGES, seed: int = 0
) -> Images:
    """Random training images, and after them the same ones under PGD on the fp32 network.

    Args:
        classifier: float32 images ``[B, C, H, W]`` in [0, 1] to logits; left as it was found.
        dataset: its training split is drawn from: the test split is for the evidence alone.
        threat: the ball of the attack.
        count: how many images are drawn, n; all of them where there are fewer.
        seed: of the draw and of the attack.

    Returns:
        Float32 ``[2n, C, H, W]`` in [0, 1].

    Raises:
        UsageError: there are no training images, or none is asked for.
    """
    train = dataset.load("train")
    chosen = np.sort(random_order(derive_seed(seed, "calibration"), len(train.labels))[: max(0, count)])
    if len(chosen) == 0:
        raise UsageError("calibration needs at least one training image.")
    x = to_float(torch.from_numpy(np.ascontiguousarray(train.images[chosen])))
    y = torch.from_numpy(train.labels[chosen])
    generator = make_generator(seed, "calibration", "attack")
    with module_mode(classifier, training=False):
        attacked = [
            _attack(classifier, x[i : i + _BATCH], y[i : i + _BATCH], threat, generator)
            for i in range(0, len(x), _BATCH)
        ]
    return np.ascontiguousarray(torch.cat([x, *attacked]).numpy())


def _attack(
    classifier: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat, generator: torch.Generator
) -> torch.Tensor:
    return ascend(
        lambda candidate, index: cross_entropy(classifier(candidate), y[index]),
        x,
        threat,
        generator,
        steps=_STEPS,
        step_size=threat.radius / 4,
    )
