"""Settings that make no sense together: each is refused in a plain sentence."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from compressor.core.errors import UsageError

if TYPE_CHECKING:
    from compressor.core.contracts import Method


def refuse_contradictions(
    name: str,
    method: Method,
    *,
    awp_gamma: float,
    attack_warm_start: bool,
    nesterov: bool,
    momentum: float,
    extra_fraction: float,
    label_smoothing: float,
) -> None:
    """Refuse add-ons that the method has no use for, or that exclude each other.

    Args:
        name: the method's name, for the message.
        method: the method with its settings.
        awp_gamma: radius of the adversarial weight perturbation; 0 for none.
        attack_warm_start: whether each attack starts from the image's last perturbation.
        nesterov: whether the optimizer looks ahead along its momentum.
        momentum: of the optimizer, at least 0.
        extra_fraction: share of each batch that is extra data, from 0 to 1.
        label_smoothing: share of the label that goes to all classes, from 0 to 1.

    Raises:
        UsageError: weights or starts are to be perturbed for a method that attacks nothing, or labels are to be
            smoothed that no loss uses, or attacks on extra images are to start warm.
    """
    if method.attack_mode == "none":
        if awp_gamma > 0:
            raise UsageError(
                f"AWP perturbs weights against an attack, and the method {name} makes none.",
                "Leave --awp out, or choose an adversarial --method.",
            )
        if attack_warm_start:
            raise UsageError(
                f"there is no attack to start warm: the method {name} makes none.",
                "Leave --warm-start out, or choose an adversarial --method.",
            )
    if nesterov and momentum == 0:
        raise UsageError("nesterov looks ahead along the momentum, and momentum is 0.", "Set one of the two.")
    if attack_warm_start and extra_fraction > 0:
        raise UsageError(
            "a warm start keeps a perturbation for each image, and extra data is drawn anew each time.",
            "Leave --warm-start or --extra-fraction out.",
        )
    if label_smoothing > 0 and method.labels_in != "loss":
        raise UsageError(
            f"there is nothing to smooth: no term of the method {name} is a cross-entropy with labels.",
            "Leave --label-smoothing out.",
        )


def refuse_idle_flags(weight_average: str, given: Collection[str]) -> None:
    """Refuse what was asked for and would do nothing.

    A recipe file may hold such numbers beside a flag that makes them idle; a flag itself is always meant.

    Raises:
        UsageError: a flag has no effect.
    """
    if "ema_decay" in given and weight_average != "ema":
        raise UsageError(f"--ema-decay has no effect: weight_average is {weight_average}.", "Add --weight-average ema.")
