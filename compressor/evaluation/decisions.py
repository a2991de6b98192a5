"""What the model itself says of the images that an attack returned: no attack's word is taken."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.core.errors import ClassMismatchError
from compressor.core.types import Threat
from compressor.evaluation.store import NO_CLASS, BatchOutcome
from compressor.frozen import in_chunks
from compressor.models.modes import module_mode
from compressor.numerics.ball import inside_ball
from compressor.numerics.losses import is_wrong


def judge(
    model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, threat: Threat, chunk: int | None = None
) -> BatchOutcome:
    """Ask the model about every image that an attack returned, in one forward pass.

    An image outside the ball, outside [0, 1] or not finite never counts: the natural image is judged in its place, and
    is not broken.

    Args:
        model: logits ``[B, K]`` from images; asked in eval mode, and left as it was found.
        x: the natural images ``[B, C, H, W]``.
        y: labels ``[B]``.
        x_adv: what the attack returned, ``[B, C, H, W]``.
        threat: the ball.
        chunk: how many images to ask about at once; ``None`` takes all.

    Raises:
        ClassMismatchError: a label that the model has no logit for.
    """
    found = x_adv.detach().float().cpu().contiguous().numpy()
    inside = inside_ball(found, x.cpu().numpy(), threat)
    asked = torch.where(torch.from_numpy(inside).to(x.device).view(-1, 1, 1, 1), x_adv.detach(), x)
    logits = eval_logits(model, asked, chunk)
    _check_classes(logits.shape[1], y)
    broken = is_wrong(logits, y).cpu().numpy() & inside
    return BatchOutcome(predicted_classes(logits), broken, ~inside, found[broken])


def eval_logits(model: nn.Module, x: Tensor, chunk: int | None = None) -> Tensor:
    """The model's logits ``[B, K]`` in eval mode, ``chunk`` images at once."""
    with module_mode(model, training=False):
        return in_chunks(model, x, chunk)


def predicted_classes(logits: Tensor) -> NDArray[np.int64]:
    """The class that each row of logits ``[B, K]`` names; ``NO_CLASS`` where it is not finite."""
    classes: NDArray[np.int64] = torch.where(logits.isfinite().all(1), logits.argmax(1), NO_CLASS).cpu().numpy()
    return classes


def _check_classes(classes: int, labels: Tensor) -> None:
    if int(labels.max()) >= classes:
        raise ClassMismatchError(
            f"the model has {classes} classes, and a label is {int(labels.max())}.",
            "Choose the dataset that the model was trained for.",
        )
