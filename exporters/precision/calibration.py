"""The images that scales are measured on: training images, natural and attacked, since attacked ones reach further."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from compressor.core.contracts import Dataset
from compressor.core.errors import UsageError
from compressor.core.types import Threat
from compressor.models.modes import module_mode
from compressor.numerics.ascent import ascend
from compressor.numerics.augment import to_float_tensor
from compressor.numerics.losses import cross_entropy
from compressor.numerics.randomness import derive_seed, make_generator
from compressor.numerics.sampling import random_order
from exporters.differentiable.graph import ValueObserver, import_graph
from exporters.model_file.runtime import Images

LabelledImages = tuple[Images, np.ndarray[Any, np.dtype[np.int64]]]

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
    images, labels = _drawn(dataset, seed, 0, max(0, count))
    if len(labels) == 0:
        raise UsageError("calibration needs at least one training image.")
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    generator = make_generator(seed, "calibration", "attack")
    with module_mode(classifier, training=False):
        attacked = [
            attack_network(classifier, x[i : i + _BATCH], y[i : i + _BATCH], threat, generator)
            for i in range(0, len(x), _BATCH)
        ]
    return np.ascontiguousarray(torch.cat([x, *attacked]).numpy())


def search_images(dataset: Dataset, *, count: int, skip: int = CALIBRATION_IMAGES, seed: int = 0) -> LabelledImages:
    """Random training images that :func:`calibration_images` did not draw: settings are compared on them.

    Args:
        dataset: its training split is drawn from.
        count: how many, n; as many as there are where there are fewer, and 0 where all were calibrated on.
        skip: how many were drawn for calibration.
        seed: of the draw, the same as for calibration.

    Returns:
        Float32 ``[n, C, H, W]`` in [0, 1], and int64 labels ``[n]``.
    """
    return _drawn(dataset, seed, skip, count)


def observe_values(model: onnx.ModelProto, images: Images, observe: ValueObserver) -> None:
    """Tell ``observe`` every value that the imported ``model`` computes of float32 images ``[n, C, H, W]``."""
    graph = import_graph(model)
    with torch.no_grad():
        for start in range(0, len(images), _BATCH):
            graph.watched(torch.from_numpy(images[start : start + _BATCH]), observe)


def _drawn(dataset: Dataset, seed: int, skip: int, count: int) -> LabelledImages:
    train = dataset.load("train")
    order = random_order(derive_seed(seed, "calibration"), len(train.labels))
    chosen = np.sort(order[skip : skip + count])
    x = to_float_tensor(torch.from_numpy(np.ascontiguousarray(train.images[chosen])))
    return x.numpy(), np.asarray(train.labels[chosen])


def attack_network(
    classifier: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: Threat, generator: torch.Generator
) -> torch.Tensor:
    """What ten steps of PGD on cross-entropy make of ``x`` float32 ``[B, C, H, W]`` with labels ``y`` ``[B]``."""
    return ascend(
        lambda candidate, index: cross_entropy(classifier(candidate), y[index]),
        x,
        threat,
        generator,
        steps=_STEPS,
        step_size=threat.radius / 4,
        early_exit=False,
    )
