"""Whether an evaluation can be believed: every check of the alarms room, on a sample of the images.

What it costs for a sample of 64, counted in forward passes of one image, a backward pass as two: 100 queries for each
robust image, where the suite has no Square; 20 gradients for each image that no probe breaks, 37 where the suite
has no two attacks to compare; and a dozen plain passes. That is 11,000 to 15,000 where no image is broken, and 8,000
to 12,000 where a third is, as of robust models at their eps. ``quick@1`` on 1,000 images costs 35,000.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from compressor.core.registry import ALARMS
from compressor.evaluation.alarms._contract import AlarmCheck, ExaminedEvaluation
from compressor.evaluation.report import Alarm, Report
from compressor.evaluation.suites import Suite
from compressor.models.modes import module_mode
from compressor.numerics.augment import floats_on_host
from compressor.numerics.randomness import derive_seed
from compressor.numerics.sampling import balanced_indices

SAMPLE = 64
"""How many images the checks look at."""


def check_soundness(
    model: nn.Module,
    attacked: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    suite: Suite,
    report: Report,
    *,
    device: torch.device | str,
    batch_size: int,
) -> tuple[Alarm, ...]:
    """Run every check of the alarms room; none of them changes a bit of the report.

    Args:
        model: decides; logits ``[B, K]`` from float images in [0, 1]; on ``device`` already.
        attacked: what the attacks differentiated: the model, or a ``Surrogate`` of it.
        images: uint8 ``[N, C, H, W]``, perhaps memory-mapped: those of the report.
        labels: int64 ``[N]``.
        suite: the attacks that were run.
        report: what they found; its seed fixes the sample, and every random choice of a check.
        device: where to compute.
        batch_size: the most images at once.

    Returns:
        The alarms that were raised, by name; empty where none was.
    """
    index = balanced_indices(labels, SAMPLE, derive_seed(report.seed, "alarms"))
    x = floats_on_host(images[index]).to(device)
    y = torch.from_numpy(labels[index].astype(np.int64)).to(device)
    found = []
    with module_mode(model, training=False), module_mode(attacked, training=False):
        examined = ExaminedEvaluation(
            model, attacked, x, y, index, report.threat, suite, report, report.seed, batch_size
        )
        for name in ALARMS.members():
            check: AlarmCheck = ALARMS.get(name)
            detail = check(examined)
            if detail is not None:
                found.append(Alarm(name, detail, check.meaning))
    return tuple(found)
