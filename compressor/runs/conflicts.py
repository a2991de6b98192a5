"""Settings that make no sense together: each is refused in a plain sentence."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from compressor.core.errors import UsageError

if TYPE_CHECKING:
    from compressor.core.contracts import Method
    from compressor.runs.recipe import Recipe


def refuse_contradictions(recipe: Recipe, method: Method) -> None:
    """Refuse add-ons that the method has no use for, or that exclude each other.

    Raises:
        UsageError: weights or starts are to be perturbed for a method that attacks nothing, or labels are to be
            smoothed that no loss uses, or attacks on extra images are to start warm.
    """
    if method.attack_mode == "none":
        if recipe.awp_gamma > 0:
            raise UsageError(
                f"AWP perturbs weights against an attack, and the method {recipe.method} makes none.",
                "Leave --awp out, or choose an adversarial --method.",
            )
        if recipe.attack_warm_start:
            raise UsageError(
                f"there is no attack to start warm: the method {recipe.method} makes none.",
                "Leave --warm-start out, or choose an adversarial --method.",
            )
    if recipe.nesterov and recipe.momentum == 0:
        raise UsageError("nesterov looks ahead along the momentum, and momentum is 0.", "Set one of the two.")
    if recipe.attack_warm_start and recipe.extra_fraction > 0:
        raise UsageError(
            "a warm start keeps a perturbation for each image, and extra data is drawn anew each time.",
            "Leave --warm-start or --extra-fraction out.",
        )
    if recipe.label_smoothing > 0 and method.labels_in != "loss":
        raise UsageError(
            f"there is nothing to smooth: no term of the method {recipe.method} is a cross-entropy with labels.",
            "Leave --label-smoothing out.",
        )


def refuse_idle_flags(recipe: Recipe, given: Collection[str]) -> None:
    """Refuse what was asked for and would do nothing.

    A recipe file may hold such numbers beside a flag that makes them idle; a flag itself is always meant.

    Args:
        recipe: the outcome.
        given: names of the recipe's fields that flags set.

    Raises:
        UsageError: a flag has no effect.
    """
    if "ema_decay" in given and recipe.weight_average != "ema":
        raise UsageError(
            f"--ema-decay has no effect: weight_average is {recipe.weight_average}.", "Add --weight-average ema."
        )
