"""What both AutoAttacks share: their settings, and that each part attacks what the parts before it did not break."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Generator, Tensor, nn

from compressor.attacks._search import run_cascade
from compressor.core.contracts import Attack, AttackResult
from compressor.core.types import Threat


@dataclass(frozen=True)
class Cascade(ABC):
    """The standard version's parts and settings; the defaults are the authors'.

    Attributes:
        attacks: the names of the parts, in order.
        steps: iterations of each APGD and FAB run.
        targets: target classes of APGD-T and FAB-T; at most one less than there are classes.
        queries: forward passes of Square for each image.
    """

    attacks: tuple[str, ...] = ("apgd-ce", "apgd-t", "fab-t", "square")
    steps: int = 100
    targets: int = 9
    queries: int = 5000

    @property
    @abstractmethod
    def stages(self) -> tuple[tuple[str, Attack], ...]:
        """The parts by name, in order."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, generator: Generator) -> AttackResult:
        """Attack ``x`` ``[B, C, H, W]`` with labels ``y`` ``[B]``; the model is left exactly as it was found."""
        return run_cascade(self.stages, model, x, y, threat, generator)
