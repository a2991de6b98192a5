"""AutoAttack, the standard version: APGD-CE, targeted APGD, targeted FAB and Square, each on what still stands.

Source: Croce and Hein 2020, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
Attacks", through pyautoattack, a release of the authors' library.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from compressor.attacks._library import make_adversary, run_adversary
from compressor.attacks._search import attack_standing
from compressor.contracts import AttackResult
from compressor.types import Threat


@dataclass(frozen=True)
class StandardAutoAttack:
    """The four attacks of the standard version in their order; the defaults are the authors'.

    Attributes:
        attacks: the library's names, in order.
        steps: iterations of each APGD and FAB run.
        targets: target classes of APGD-T and FAB-T; at most one less than there are classes.
        queries: forward passes of Square for each image.
    """

    attacks: tuple[str, ...] = ("apgd-ce", "apgd-t", "fab-t", "square")
    steps: int = 100
    targets: int = 9
    queries: int = 5000

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, generator: Generator) -> AttackResult:
        """Attack ``x`` ``[B, C, H, W]`` with labels ``y`` ``[B]``; the model is left exactly as it was found."""

        def search(natural: Tensor, labels: Tensor) -> Tensor:
            with torch.no_grad():
                classes = model(natural[:1]).shape[1]
            adversary = make_adversary(
                model,
                threat,
                generator,
                natural.device,
                attacks=self.attacks,
                classes=classes,
                steps=self.steps,
                targets=self.targets,
                queries=self.queries,
            )
            return run_adversary(adversary, natural, labels)

        return attack_standing(model, x, y, threat, search)


ATTACK = StandardAutoAttack()
