"""The inner maximisation of a training step: a method's objective, maximised from a given start."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from compressor.core.contracts import Batch, Method
from compressor.frozen import chunk_of
from compressor.numerics.ascent import ascend
from compressor.runs.recipe import Recipe


@dataclass(frozen=True)
class InnerMaximisation:
    """Attacks a batch as the recipe and its method say. Everything it uses is given, so it draws nothing.

    Attributes:
        recipe: threat model, steps and step size.
        method: gives the objective.
        model: what is attacked: the student's frozen twin, or the student.
        teacher: asked by some objectives; None where there is none.
    """

    recipe: Recipe
    method: Method
    model: nn.Module
    teacher: nn.Module | None

    def __call__(self, batch: Batch, start: Tensor) -> Tensor:
        """Adversarial images ``[B, C, H, W]`` in the ball around ``batch.x``, searched from ``start`` of that shape.

        A method without an attack gives the natural images back.
        """
        objective = self.method.inner(self.model, self.teacher, batch)
        if objective is None:
            return batch.x
        threat = self.recipe.threat
        return ascend(
            objective,
            batch.x,
            threat,
            steps=self.recipe.attack_steps,
            step_size=self.recipe.attack_step_size * threat.radius,
            initial=start,
            chunk=chunk_of(self.model),
            early_exit=False,
        )
