"""AutoAttack, the standard version: APGD-CE, targeted APGD, targeted FAB and Square, each on the images robust so far.

Source: Croce and Hein 2020, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
Attacks". The loops are our own; ``autoattack-reference`` runs the authors'.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Generator, Tensor, nn

from compressor.attacks._search import run_cascade
from compressor.core.contracts import Attack, AttackResult
from compressor.core.errors import UsageError
from compressor.core.registry import ATTACKS
from compressor.core.types import Threat


@dataclass(frozen=True)
class StandardAutoAttack:
    """The four attacks of the standard version in their order; the defaults are the authors'.

    Attributes:
        attacks: members of this room, in order.
        steps: iterations of each APGD and FAB run.
        targets: target classes of APGD-T and FAB-T; at most one less than there are classes.
        queries: forward passes of Square for each image.
    """

    attacks: tuple[str, ...] = ("apgd-ce", "apgd-t", "fab-t", "square")
    steps: int = 100
    targets: int = 9
    queries: int = 5000

    is_reference: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if unknown := set(self.attacks) - set(_SETTINGS):
            raise UsageError(f"AutoAttack has no part {min(unknown)!r}.", f"Its parts: {', '.join(_SETTINGS)}.")

    @property
    def stages(self) -> tuple[tuple[str, Attack], ...]:
        """The parts by name, in order."""
        return tuple(
            (name, replace(ATTACKS.get(name), **{field: getattr(self, field) for field in _SETTINGS[name]}))
            for name in self.attacks
        )

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, generator: Generator) -> AttackResult:
        """Attack ``x`` ``[B, C, H, W]`` with labels ``y`` ``[B]``; the model is left exactly as it was found."""
        return run_cascade(self.stages, model, x, y, threat, generator)


_SETTINGS: dict[str, tuple[str, ...]] = {
    "apgd-ce": ("steps",),
    "apgd-dlr": ("steps",),
    "apgd-t": ("steps", "targets"),
    "fab-t": ("steps", "targets"),
    "square": ("queries",),
}

ATTACK = StandardAutoAttack()
