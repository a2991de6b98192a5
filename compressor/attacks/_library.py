"""Where this room meets pyautoattack: what it does to the process is undone, what it assumes is provided."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from pyautoattack import AutoAttack
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor, nn

from compressor.core.types import Threat

# Outside the logging hierarchy: the library's warnings would otherwise reach the user's terminal between our lines.
_SILENT = logging.Logger("pyautoattack")
_SILENT.addHandler(logging.NullHandler())


class LibraryModel(nn.Module):
    """A classifier as pyautoattack needs it: contiguous images in, contiguous gradients back, logits it may overwrite.

    The library calls ``.view`` on input gradients, which a channels-last network returns channels-last, and Square
    writes into the logits in place.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, K]`` of images ``[B, C, H, W]``."""
        # The backward pass of the flat view lays the gradient out in order, whatever layout arrives.
        logits: Tensor = self.model(x.contiguous().view(len(x), x.shape[1:].numel()).view(x.shape))
        return logits.clone()


def make_adversary(
    model: nn.Module,
    threat: Threat,
    seed: int,
    device: torch.device,
    *,
    attacks: Sequence[str],
    classes: int = 10,
    steps: int = 100,
    targets: int = 9,
    queries: int = 5000,
) -> Any:
    """Configure pyautoattack as its standard version, or a cheaper or smaller part of it.

    With fewer than ``targets + 1`` classes there are only ``classes - 1`` targets. The targeted DLR loss divides by the
    gap to the fourth largest logit: with fewer than 4 classes the targeted margin ``z_t - z_y`` stands in for it.

    Args:
        model: the classifier, in eval mode.
        threat: the ball.
        seed: the library's, which seeds itself anew with it before each attack and batch.
        device: where the images are.
        attacks: the library's names, in order: ``apgd-ce``, ``apgd-t``, ``fab-t``, ``square``.
        classes: how many logits there are; only the targeted attacks ask.
        steps: iterations of each APGD and FAB run.
        targets: target classes of ``apgd-t`` and ``fab-t``.
        queries: forward passes of Square for each image.

    Returns:
        An ``AutoAttack``, silent.
    """
    targets = min(targets, classes - 1)
    wrapped = LibraryModel(model)
    adversary = AutoAttack(
        wrapped,
        attacks=list(attacks),
        device=device,
        eps=threat.radius,
        norm=threat.norm,
        seed=seed,
        version="custom",
    )
    common = {"n_iter": steps, "n_restarts": 1, "eps": threat.radius, "norm": threat.norm, "seed": seed}
    adversary.apgd = APGDAttack(wrapped, **common, device=device, logger=_SILENT)
    adversary.apgd_targeted = APGDAttack_targeted(
        wrapped, **common, n_target_classes=targets, device=device, logger=_SILENT
    )
    if classes < 4:
        adversary.apgd_targeted.dlr_loss_targeted = _targeted_margin(adversary.apgd_targeted)
    adversary.fab.n_iter, adversary.fab.n_restarts, adversary.fab.n_target_classes = steps, 1, targets
    adversary.square.n_queries = queries
    adversary.verbose = False
    adversary.logger = _SILENT
    return adversary


def run_adversary(adversary: Any, x: Tensor, y: Tensor) -> Tensor:
    """The library's adversarial images for ``x`` ``[B, C, H, W]``, natural where it found none, in one batch."""
    with _untouched_process():
        x_adv, _ = adversary.run_standard_evaluation(x, y, batch_size=len(x))
    found: Tensor = x_adv
    return found


def _targeted_margin(attack: Any) -> Any:
    def loss(logits: Tensor, y: Tensor) -> Tensor:
        target = attack.y_target
        return logits.gather(1, target.unsqueeze(1)).squeeze(1) - logits.gather(1, y.unsqueeze(1)).squeeze(1)

    return loss


@contextmanager
def _untouched_process() -> Iterator[None]:
    """Put back what the library changes for the whole process: every global random state, and the trace function."""
    trace = sys.gettrace()
    seeded = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if seeded else []
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        sys.settrace(trace)
        if mps is not None:
            torch.mps.set_rng_state(mps)
