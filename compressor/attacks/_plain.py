"""An attack as a plain function of a model, images and labels."""

from __future__ import annotations

from dataclasses import fields, replace
from types import ModuleType
from typing import Any, Protocol, cast

from torch import Tensor, nn

from compressor.core.contracts import Attack, AttackResult
from compressor.core.errors import UsageError
from compressor.core.types import Norm, Threat, eps_text
from compressor.numerics.randomness import make_generator


class PlainAttack(Protocol):
    """An attack with a number for its radius and a seed for its noise."""

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        eps: str | float = "8/255",
        norm: Norm = "Linf",
        seed: int = 0,
        **settings: Any,
    ) -> AttackResult:
        """Search the ball around each image for one that the model misclassifies.

        Args:
            model: logits ``[B, K]`` from images in [0, 1]; it is left exactly as it was found.
            x: images ``[B, C, H, W]`` in [0, 1], on the model's device; left as they are.
            y: labels ``[B]``.
            eps: the radius, such as ``8 / 255`` or ``"8/255"``.
            norm: ``Linf`` or ``L2``.
            seed: names the attack's random numbers.
            settings: fields of the attack that differ from its defaults, such as ``steps``.

        Returns:
            ``x_adv`` ``[B, C, H, W]`` in the ball and in [0, 1], and ``broken``, bool ``[B]``: whether the model
            misclassifies each.

        Raises:
            UsageError: images that are out of range, labels of another number, or a setting that does not exist.
        """
        ...


def plain_attack(name: str, module: ModuleType) -> PlainAttack:
    """Make a plain function of a member of this room."""
    attack: Any = module.ATTACK
    known = [field.name for field in fields(attack)]

    def run(
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        eps: str | float = "8/255",
        norm: Norm = "Linf",
        seed: int = 0,
        **settings: Any,
    ) -> AttackResult:
        if unknown := sorted(settings.keys() - set(known)):
            raise UsageError(f"{name} has no setting {unknown[0]!r}.", f"Its settings: {', '.join(known) or 'none'}.")
        _check_images(x, y)
        threat = Threat(norm, eps_text(eps))
        chosen = cast(Attack, replace(attack, **settings) if settings else attack)
        return chosen(model, x, y, threat, make_generator(seed, name, device=x.device))

    run.__name__ = run.__qualname__ = name
    run.__module__ = "compressor.attacks"
    summary = (module.__doc__ or "").strip()
    settings = f"\n\nSettings: {', '.join(known)}." if known else ""
    run.__doc__ = f"{summary}{settings}\n\nArguments and result: see ``PlainAttack``."
    return run


def _check_images(x: Tensor, y: Tensor) -> None:
    if x.ndim != 4 or y.shape != x.shape[:1]:
        raise UsageError(
            f"the images have the shape {tuple(x.shape)}, and the labels {tuple(y.shape)}.",
            "Give images [B, C, H, W] and labels [B].",
        )
    if len(x) and not 0 <= float(x.min()) <= float(x.max()) <= 1:
        raise UsageError(
            f"the images have values from {float(x.min()):g} to {float(x.max()):g}.",
            "Give images in [0, 1]; a model has its normalisation inside.",
        )
