"""What every attack of this room has in common: it keeps the room's contract around a bare search."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from compressor.ascent import project
from compressor.contracts import AttackResult
from compressor.frozen import Surrogate, chunk_of, in_chunks
from compressor.losses import is_wrong
from compressor.modes import module_mode
from compressor.types import Threat

Search = Callable[[Tensor, Tensor], Tensor]
"""From images ``[b, C, H, W]`` that the model gets right and their labels ``[b]`` to candidates of the same shape."""


def attack_standing(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, search: Search) -> AttackResult:
    """Run a search on the images that the model gets right, and judge what it found.

    An image that the model gets wrong unattacked is broken as it is. A candidate is projected into the ball before it
    is judged, and a single forward pass on the returned image judges it: a search's own word is not taken. The model
    is in eval mode throughout.

    Args:
        model: logits ``[B, K]`` from images; left exactly as it was found.
        x: images ``[B, C, H, W]`` in [0, 1].
        y: int64 labels ``[B]``.
        threat: the ball.
        search: finds candidates; a candidate that is not finite is dropped for the image itself.

    Returns:
        The images, natural where the search was not needed, and which of them the model gets wrong.
    """
    x_adv = x.detach().clone(memory_format=torch.contiguous_format)
    with _borrowed(model):
        broken = errs(model, x_adv, y)
        standing = torch.nonzero(~broken).squeeze(1)
        if len(standing) > 0:
            natural, labels = x_adv[standing], y[standing]
            found = search(natural, labels).detach()
            finite = found.isfinite().flatten(1).all(1).view(-1, 1, 1, 1)
            x_adv[standing] = project(torch.where(finite, found, natural), natural, threat)
            broken[standing] = errs(model, x_adv[standing], labels)
    return AttackResult(x_adv, broken)


def errs(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Whether the model gets each image wrong, bool ``[B]``; logits that are not finite are an error.

    Of a surrogate, the model that it stands for is asked.
    """
    if len(x) == 0:
        return torch.zeros(0, dtype=torch.bool, device=x.device)
    decider = model.decider if isinstance(model, Surrogate) else model
    return is_wrong(in_chunks(decider, x, chunk_of(model)), y)


@contextmanager
def _borrowed(model: nn.Module) -> Iterator[None]:
    """Eval mode and no parameter gradients inside the block; every flag is put back.

    Some libraries call ``backward()``, which would add to ``.grad`` of every parameter that asks for it.
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with module_mode(model, training=False):
        try:
            for parameter in learning:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in learning:
                parameter.requires_grad_(True)
