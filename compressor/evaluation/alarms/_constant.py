"""Whether a model gives everything one class: then nothing can break it, and its figure is true as it is."""

from __future__ import annotations

import torch

from compressor.evaluation.alarms._contract import ExaminedEvaluation
from compressor.numerics.randomness import make_generator


def predicts_one_class(examined: ExaminedEvaluation) -> bool:
    """Whether the model gives one class to the sample, to extreme changes of it, to noise, and to grey.

    Where most of the sample is of that class the answers show little, and it is no.
    """
    decided = examined.logits.argmax(1)
    common = decided[0]
    if bool((decided != common).any()) or 2 * int((examined.y == common).sum()) > len(examined.y):
        return False
    shape, device = examined.x.shape, examined.x.device
    generator = make_generator(examined.seed, "alarm", "one class")
    signs = 2.0 * torch.randint(0, 2, shape, generator=generator).to(device) - 1
    corners = (examined.x + examined.threat.radius * signs).clamp(0, 1)
    noise = torch.rand(shape, generator=generator).to(device)
    grey = torch.full_like(examined.x[:1], 0.5)
    return bool((examined.ask(torch.cat([corners, noise, grey])).argmax(1) == common).all())
