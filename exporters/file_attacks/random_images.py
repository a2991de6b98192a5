"""Random pictures inside the ball, which no exporter can have prepared for."""

from __future__ import annotations

import torch

from compressor.core.types import Threat
from compressor.numerics.ascent import ascend
from compressor.numerics.randomness import make_generator
from exporters.claim.evidence import Floats


def draw_in_ball(images: Floats, threat: Threat, seed: int) -> Floats:
    """One uniform draw from the ball of each image, clipped to [0, 1]: float32 ``[B, C, H, W]`` like ``images``."""
    generator = make_generator(seed, "draw inside")
    start = ascend(_no_objective, torch.from_numpy(images), threat, generator, steps=0, step_size=0.0)
    return start.numpy()


def _no_objective(x_adv: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    raise AssertionError("without steps there is no objective")
