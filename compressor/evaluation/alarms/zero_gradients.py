"""The gradient that an attack would follow is zero, or not a number, at the images themselves."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from compressor.evaluation.alarms._contract import AlarmCheck, ExaminedEvaluation
from compressor.evaluation.alarms._probing import predicts_one_class
from compressor.evaluation.chance import USELESS_GRADIENTS_ALLOWED, rate_exceeds
from compressor.numerics.losses import cross_entropy, cw_margin


def _find(examined: ExaminedEvaluation) -> str | None:
    """Take the input gradient of each loss at every image that the model gets right, and count those without one.

    The gradient of a constant model is zero as well, and rightly: there is nothing to break, and no alarm.
    """
    places = torch.nonzero(examined.right).squeeze(1)
    if len(places) == 0 or not examined.is_differentiable:
        return None
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"cross-entropy": cross_entropy, "margin": cw_margin}
    useless = _useless(examined, places, list(losses.values()))
    found = [
        f"{count} ({name})"
        for name, count in zip(losses, useless, strict=True)
        if rate_exceeds(count, len(places), USELESS_GRADIENTS_ALLOWED)
    ]
    if not found or predicts_one_class(examined):
        return None
    return (
        f"of {len(places)} images that the model gets right, the gradient is zero or not a number on "
        f"{' and '.join(found)}"
    )


def _useless(
    examined: ExaminedEvaluation, places: Tensor, losses: list[Callable[[Tensor, Tensor], Tensor]]
) -> list[int]:
    """How many of the images at ``places`` have no gradient, by loss; one forward pass serves all."""
    counts = [0] * len(losses)
    for part in torch.split(places, examined.batch_size):
        x = examined.x[part].detach().requires_grad_()
        with torch.enable_grad():
            logits = examined.attacked(x)
            for position, loss in enumerate(losses):
                (gradient,) = torch.autograd.grad(loss(logits, examined.y[part]).sum(), x, retain_graph=True)
                flat = gradient.flatten(1)
                counts[position] += int(((flat == 0).all(1) | ~flat.isfinite().all(1)).sum())
    return counts


CHECK = AlarmCheck(
    "An attack that follows this loss does not know where to go from these images: rescale the logits, or take out "
    "what rounds or saturates, and attack that.",
    _find,
)
