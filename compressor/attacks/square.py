"""Square: random search with square-shaped changes; it asks for logits alone, so masked gradients do not stop it.

Source: Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial attack via random search",
through pyautoattack.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Generator, Tensor, nn

from compressor.attacks._library import make_adversary, run_adversary
from compressor.attacks._search import attack_standing
from compressor.contracts import AttackResult
from compressor.types import Threat


@dataclass(frozen=True)
class Square:
    """The black-box attack of AutoAttack, alone.

    Attributes:
        queries: forward passes for each image.
    """

    queries: int = 5000

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, generator: Generator) -> AttackResult:
        """Attack ``x`` ``[B, C, H, W]`` with labels ``y`` ``[B]``; the model is left exactly as it was found."""

        def search(natural: Tensor, labels: Tensor) -> Tensor:
            adversary = make_adversary(
                model, threat, generator, natural.device, attacks=["square"], queries=self.queries
            )
            return run_adversary(adversary, natural, labels)

        return attack_standing(model, x, y, threat, search)


ATTACK = Square()
