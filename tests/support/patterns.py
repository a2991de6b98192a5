"""Pictures of faint and strong patterns, a dataset that has them, and a small network that is trained on them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from compressor.core.contracts import Split
from compressor.core.types import Threat
from compressor.numerics.ascent import ascend
from compressor.numerics.losses import cross_entropy
from compressor.numerics.randomness import make_generator
from tests.support.networks import small_network

SIDE = 8
PATTERNS = np.kron(np.random.default_rng(0).uniform(-1, 1, (3, 3, 2, 2)), np.ones((4, 4)))


class TestImages:
    """A dataset that has test images and no others."""

    __test__ = False

    def __init__(self, name: str, split: Split, class_names: tuple[str, ...] = ("a", "b", "c")) -> None:
        self.name, self.class_names, self.image_size = name, class_names, split.images.shape[-1]
        self._split = split

    def has(self, split: str) -> bool:
        return split == "test"

    def load(self, split: str) -> Split:
        return self._split


def draw_patterns(seed: int, total: int, ease: float = 0.0) -> Split:
    """Three classes of patterns, from faint to strong; ``ease`` makes all of them strong."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, total)
    strength = rng.uniform(ease, 1, (total, 1, 1, 1))
    x = 0.5 + 0.3 * strength * PATTERNS[labels] + rng.normal(0, 0.03, (total, 3, SIDE, SIDE))
    return Split(np.rint(255 * x.clip(0, 1)).astype(np.uint8), labels.astype(np.int64))


def train_on_patterns(split: Split, steps: int, threat: Threat | None, step_size: float = 0.0) -> nn.Module:
    """A small network with a ReLU6, trained on attacked patterns, or on natural ones without a threat."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = small_network(nn.ReLU6(), 3)
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    images, labels = torch.from_numpy(split.images).float() / 255, torch.from_numpy(split.labels)
    for step in range(steps):
        part = torch.arange(64) + 64 * (step % 10)
        x, y = images[part], labels[part]
        if threat is not None:
            x = ascend(
                lambda x_adv, index, y=y: cross_entropy(net(x_adv), y[index]),
                x,
                threat,
                make_generator("train", step),
                steps=2,
                step_size=step_size,
            )
        optimizer.zero_grad()
        cross_entropy(net(x), y).mean().backward()
        optimizer.step()
    return net.eval()
