"""One file an attack: a search inside the ball for images that the model gets wrong.

Each attack is a plain function here, for any ``nn.Module``: ``from compressor.attacks import apgd_ce``, then
``apgd_ce(model, x, y, eps=8 / 255)``. The file of the same name holds ``ATTACK``, which the registry finds.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from compressor.core.registry import ATTACKS

if TYPE_CHECKING:
    from compressor.attacks._plain import PlainAttack

    apgd_ce: PlainAttack
    apgd_dlr: PlainAttack
    apgd_t: PlainAttack
    autoattack: PlainAttack
    autoattack_reference: PlainAttack
    cw_inf: PlainAttack
    fab_t: PlainAttack
    fgsm: PlainAttack
    pgd_multitargeted: PlainAttack
    pgd_sat: PlainAttack
    pgd_targeted: PlainAttack
    pgd_trades: PlainAttack
    square: PlainAttack

__all__ = sorted(member.path.stem for member in ATTACKS.members().values())  # noqa: PLE0605 - a list of texts


class _Room(ModuleType):
    """The package itself, whose attributes named like its files are the attacks, not the modules."""

    def __setattr__(self, name: str, value: Any) -> None:
        # The import system binds a submodule to its package here; the module stays in sys.modules.
        if isinstance(value, ModuleType) and hasattr(value, "ATTACK"):
            from compressor.attacks._plain import plain_attack

            value = plain_attack(name, value)
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


def __getattr__(name: str) -> Any:
    """Import an attack when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    importlib.import_module(f"{__name__}.{name}")
    return vars(sys.modules[__name__])[name]


sys.modules[__name__].__class__ = _Room
