"""What every attack of this room has in common: it keeps the room's contract around a bare search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Generator, Tensor, nn

from compressor.core.contracts import Attack, AttackResult
from compressor.core.types import Threat
from compressor.frozen import chunk_of, decider_of, in_chunks
from compressor.models.modes import module_mode
from compressor.numerics.ascent import project
from compressor.numerics.losses import is_wrong

SearchFunction = Callable[[Tensor, Tensor], Tensor]
"""From images ``[b, C, H, W]`` that the model gets right and their labels ``[b]`` to candidates of the same shape."""

PartSearch = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From the positions of ``b`` images to candidates ``[b, C, H, W]`` and which of them the model gets wrong, ``[b]``."""


def attack_correctly_classified(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat, search: SearchFunction
) -> AttackResult:
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
    with frozen_for_attack(model):
        broken = misclassifies(model, x_adv, y)
        robust_so_far = torch.nonzero(~broken).squeeze(1)
        if len(robust_so_far) > 0:
            natural, labels = x_adv[robust_so_far], y[robust_so_far]
            found = search(natural, labels).detach()
            finite = found.isfinite().flatten(1).all(1).view(-1, 1, 1, 1)
            x_adv[robust_so_far] = project(torch.where(finite, found, natural), natural, threat)
            broken[robust_so_far] = misclassifies(model, x_adv[robust_so_far], labels)
    return AttackResult(x_adv, broken)


def run_cascade(
    stages: Sequence[tuple[str, Attack]], model: nn.Module, x: Tensor, y: Tensor, threat: Threat, generator: Generator
) -> AttackResult:
    """Run each attack of an ensemble on the images that are robust so far.

    Every stage begins from the generator's state, as in the released code of AutoAttack; it is not advanced.
    """
    x_adv = x.detach().clone(memory_format=torch.contiguous_format)
    broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for _, attack in stages:
        robust_so_far = torch.nonzero(~broken).squeeze(1)
        if len(robust_so_far) == 0:
            break
        result = attack(model, x[robust_so_far], y[robust_so_far], threat, generator.clone_state())
        x_adv[robust_so_far], broken[robust_so_far] = result.x_adv, result.broken
    return AttackResult(x_adv, broken)


def search_in_turn(x: Tensor, searches: Iterable[PartSearch]) -> Tensor:
    """Images ``[B, C, H, W]`` after each of several searches, on those that are robust so far."""
    x_adv = x.clone()
    robust_so_far = torch.arange(len(x), device=x.device)
    for search in searches:
        x_adv[robust_so_far], broken = search(robust_so_far)
        robust_so_far = robust_so_far[~broken]
        if len(robust_so_far) == 0:
            break
    return x_adv


def misclassifies(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Whether the model gets each image wrong, bool ``[B]``; logits that are not finite are an error.

    Of a surrogate, the model that it replaces is asked.
    """
    if len(x) == 0:
        return torch.zeros(0, dtype=torch.bool, device=x.device)
    return is_wrong(in_chunks(decider_of(model), x, chunk_of(model)), y)


@contextmanager
def frozen_for_attack(model: nn.Module) -> Iterator[None]:
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


@torch.no_grad()
def likeliest_wrong_classes(model: nn.Module, x: Tensor, y: Tensor, count: int) -> Tensor:
    """The wrong classes of largest logits on natural images, the largest first.

    Args:
        model: logits ``[B, K]`` from images, in eval mode.
        x: images ``[B, C, H, W]``.
        y: labels ``[B]``.
        count: how many; ``K - 1`` where there are fewer.

    Returns:
        int64 ``[B, min(count, K - 1)]``.
    """
    wrong = in_chunks(model, x, chunk_of(model)).scatter(1, y.unsqueeze(1), float("-inf"))
    return wrong.topk(min(count, wrong.shape[1] - 1), dim=1).indices
