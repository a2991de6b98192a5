"""AutoAttack by the loops of pyautoattack, a release of the authors' library: what our own is held against.

Source: Croce and Hein 2020, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
Attacks".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from compressor.attacks._cascade import Cascade
from compressor.attacks._library import make_adversary, run_adversary
from compressor.attacks._search import attack_correctly_classified
from compressor.core.contracts import Attack, AttackResult
from compressor.core.types import Threat


@dataclass(frozen=True)
class LibraryAttack:
    """One of the library's attacks, by its own loop and the library's name; its settings are ``Cascade``'s.

    The library seeds itself anew for every batch, so the generator is not drawn from: its seed is handed on.
    """

    attack: str
    steps: int
    targets: int
    queries: int

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, generator: Generator) -> AttackResult:
        """Attack ``x`` ``[B, C, H, W]`` with labels ``y`` ``[B]``; the model is left exactly as it was found."""

        def search(natural: Tensor, labels: Tensor) -> Tensor:
            with torch.no_grad():
                classes = model(natural[:1]).shape[1]
            adversary = make_adversary(
                model,
                threat,
                generator.initial_seed(),
                natural.device,
                attacks=[self.attack],
                classes=classes,
                steps=self.steps,
                targets=self.targets,
                queries=self.queries,
            )
            return run_adversary(adversary, natural, labels)

        return attack_correctly_classified(model, x, y, threat, search)


@dataclass(frozen=True)
class ReferenceAutoAttack(Cascade):
    """The standard version as the library runs it, by the library's names.

    Under the same seed and batch size it breaks the images that a plain run of the library breaks.
    """

    is_reference: ClassVar[bool] = True

    @property
    def stages(self) -> tuple[tuple[str, Attack], ...]:
        """The parts by name, in order."""
        return tuple((name, LibraryAttack(name, self.steps, self.targets, self.queries)) for name in self.attacks)


ATTACK = ReferenceAutoAttack()
