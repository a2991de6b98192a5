"""AutoAttack, the standard version: APGD-CE, targeted APGD, targeted FAB and Square, each on the images robust so far.

Source: Croce and Hein 2020, "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free
Attacks". The loops are our own; ``autoattack-reference`` runs the authors'.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from compressor.attacks._cascade import Cascade
from compressor.core.contracts import Attack
from compressor.core.errors import UsageError
from compressor.core.registry import ATTACKS


@dataclass(frozen=True)
class StandardAutoAttack(Cascade):
    """The four attacks of the standard version in their order, members of this room."""

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


_SETTINGS: dict[str, tuple[str, ...]] = {
    "apgd-ce": ("steps",),
    "apgd-dlr": ("steps",),
    "apgd-t": ("steps", "targets"),
    "fab-t": ("steps", "targets"),
    "square": ("queries",),
}

ATTACK = StandardAutoAttack()
