"""Projected ascent towards wrong classes, one after another: the margin of the target over the right class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from compressor.attacks._gradient import check_steps, step_length
from compressor.attacks._search import PartSearch, attack_correctly_classified, likeliest_wrong_classes, search_in_turn
from compressor.core.contracts import AttackResult
from compressor.core.errors import UsageError
from compressor.core.types import Threat
from compressor.frozen import chunk_of, confirm_misclassified
from compressor.numerics.ascent import ascend
from compressor.numerics.losses import targeted_margin


@dataclass(frozen=True)
class TargetedAttack:
    """PGD on ``z_t - z_y`` for each of the likeliest wrong classes t; an image leaves as soon as the model errs on it.

    Attributes:
        targets: how many wrong classes, the likeliest first; at most one less than there are classes.
        steps: gradients towards each class.
        step_size: the length of a step; see ``GradientAttack``.
        restarts: runs towards each class, each from a uniform start in the ball.
    """

    targets: int
    steps: int = 20
    step_size: str = "0.25eps"
    restarts: int = 1

    def __post_init__(self) -> None:
        check_steps(self.steps, self.step_size)
        if min(self.targets, self.restarts) < 1:
            raise UsageError(
                f"an attack on {self.targets} targets with {self.restarts} restarts is no attack.",
                "Use at least 1 of each.",
            )

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, generator: Generator) -> AttackResult:
        """Attack ``x`` ``[B, C, H, W]`` with labels ``y`` ``[B]``; the model is left exactly as it was found."""

        def search(natural: Tensor, labels: Tensor) -> Tensor:
            def towards(target: Tensor) -> PartSearch:
                return lambda at: self._towards(model, natural[at], labels[at], target[at], threat, generator)

            targets = likeliest_wrong_classes(model, natural, labels, self.targets).unbind(1)
            return search_in_turn(natural, (towards(target) for target in targets for _ in range(self.restarts)))

        return attack_correctly_classified(model, x, y, threat, search)

    def _towards(
        self, model: nn.Module, x: Tensor, y: Tensor, target: Tensor, threat: Threat, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)

        def objective(x_adv: Tensor, index: Tensor) -> Tensor:
            logits = model(x_adv)
            broken[index] = confirm_misclassified(model, x_adv, y[index], logits)
            return torch.where(broken[index], torch.inf, targeted_margin(logits, y[index], target[index]))

        x_adv = ascend(
            objective,
            x,
            threat,
            generator,
            steps=self.steps,
            step_size=step_length(self.step_size, threat),
            chunk=chunk_of(model),
        )
        return x_adv, broken
