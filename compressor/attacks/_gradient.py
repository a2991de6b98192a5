"""The attack that FGSM, PGD and CW are configurations of: projected ascent on a loss of the label."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from compressor.attacks._search import attack_correctly_classified
from compressor.core.contracts import AttackResult
from compressor.core.errors import UsageError
from compressor.core.types import Threat, parse_eps
from compressor.frozen import chunk_of, confirm_misclassified
from compressor.numerics import losses
from compressor.numerics.ascent import Start, ascend

Loss = Literal["cross_entropy", "cw_margin"]


@dataclass(frozen=True)
class GradientAttack:
    """Projected gradient ascent on a loss, from one start.

    Attributes:
        steps: how many gradients are taken.
        step_size: the length of a step: a fraction of the pixel range such as ``"2/255"``, or of the radius when it
            ends in ``eps``, such as ``"0.25eps"``.
        start: where it begins: ``none`` at the image, ``uniform`` in the ball, ``gaussian`` around the image.
        start_scale: a fraction of the radius for ``uniform``, a standard deviation in pixel units for ``gaussian``.
        loss: what it maximises, a function of ``compressor.numerics.losses``.
        decide: ``last`` judges the last iterate alone, as the papers do; ``first`` keeps the first iterate that the
            model gets wrong, which breaks at least as many images and spends nothing on broken ones.
    """

    steps: int
    step_size: str
    start: Start = "uniform"
    start_scale: float = 1.0
    loss: Loss = "cross_entropy"
    decide: Literal["last", "first"] = "last"

    def __post_init__(self) -> None:
        check_steps(self.steps, self.step_size)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, generator: Generator) -> AttackResult:
        """Attack ``x`` ``[B, C, H, W]`` with labels ``y`` ``[B]``; the model is left exactly as it was found."""
        loss = getattr(losses, self.loss)

        def search(natural: Tensor, labels: Tensor) -> Tensor:
            def objective(x_adv: Tensor, index: Tensor) -> Tensor:
                logits = model(x_adv)
                values: Tensor = loss(logits, labels[index])
                if self.decide == "last":
                    return values
                return torch.where(confirm_misclassified(model, x_adv, labels[index], logits), torch.inf, values)

            return ascend(
                objective,
                natural,
                threat,
                generator,
                steps=self.steps,
                step_size=step_length(self.step_size, threat),
                start=self.start,
                start_scale=self.start_scale,
                chunk=chunk_of(model),
                early_exit=self.decide == "first",
            )

        return attack_correctly_classified(model, x, y, threat, search)


def check_steps(steps: int, step_size: str) -> None:
    """Refuse what is no attack.

    Raises:
        UsageError: no step, or a step size that is not a number above 0.
    """
    if steps < 1:
        raise UsageError(f"an attack of {steps} steps is no attack.", "Use at least 1 step.")
    _parse_step(step_size)


def step_length(step_size: str, threat: Threat) -> float:
    """The length of a step against this threat, in units of the pixel range."""
    size, is_relative = _parse_step(step_size)
    return float(size * parse_eps(threat.eps, largest=1000) if is_relative else size)


def _parse_step(text: str) -> tuple[Fraction, bool]:
    """The number in a step size, and whether it counts radii."""
    try:
        size = Fraction(text.removesuffix("eps"))
    except (ValueError, ZeroDivisionError):
        size = Fraction(0)
    if size <= 0:
        raise UsageError(
            f"the step size {text!r} is not a number above 0.", "Write it as 2/255, 0.003, or 0.25eps for radii."
        )
    return size, text.endswith("eps")
