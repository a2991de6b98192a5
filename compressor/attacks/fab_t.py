"""FAB-T: walks along the boundary towards each of the 9 likeliest wrong classes; it minimises the distance.

Source: Croce and Hein 2020, "Minimally distorted Adversarial Examples with a Fast Adaptive Boundary Attack", in the
targeted version of AutoAttack.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor, nn

from compressor.attacks._fab import closest_errors, search_ball
from compressor.attacks._search import attack_correctly_classified
from compressor.core.contracts import AttackResult
from compressor.core.errors import UsageError
from compressor.core.types import Norm, Threat


@dataclass(frozen=True)
class TargetedFab:
    """The Fast Adaptive Boundary attack, one run towards each target. Nothing in it is random.

    Attributes:
        steps: of each run.
        targets: how many wrong classes, the likeliest first; at most one less than there are classes.
    """

    steps: int = 100
    targets: int = 9

    def __post_init__(self) -> None:
        if min(self.steps, self.targets) < 1:
            raise UsageError(
                f"an attack of {self.steps} steps and {self.targets} targets is no attack.", "Use at least 1 of each."
            )

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, generator: Generator) -> AttackResult:
        """Attack ``x`` ``[B, C, H, W]`` with labels ``y`` ``[B]``; the model is left exactly as it was found."""

        def search(natural: Tensor, labels: Tensor) -> Tensor:
            return search_ball(model, natural, labels, threat, steps=self.steps, targets=self.targets)

        return attack_correctly_classified(model, x, y, threat, search)

    def closest(
        self, model: nn.Module, x: Tensor, y: Tensor, norm: Norm, generator: Generator
    ) -> tuple[Tensor, Tensor]:
        """The closest errors found: upper bounds of each image's minimal adversarial perturbation.

        Args:
            model: logits ``[B, K]`` from images; of a surrogate, its model confirms every error. Left as it was found.
            x: images ``[B, C, H, W]`` in [0, 1].
            y: labels ``[B]``.
            norm: how distance is measured.
            generator: draws nothing, as this search starts at the image; named as for every attack.

        Returns:
            The errors, ``[B, C, H, W]``, ``x`` where none was found; and their distances ``[B]`` in units of the pixel
            range: 0 where the model errs on the image itself, ``inf`` where none was found.
        """
        return closest_errors(model, x, y, norm, steps=self.steps, targets=self.targets)


ATTACK = TargetedFab()
