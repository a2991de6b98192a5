"""Square: random search with square-shaped changes; it asks for logits alone, so masked gradients do not stop it.

Source: Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial attack via random search".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from compressor.attacks import _square
from compressor.attacks._search import attack_correctly_classified
from compressor.core.contracts import AttackResult
from compressor.core.errors import UsageError
from compressor.core.types import Threat
from compressor.frozen import chunk_of, confirm_misclassified, in_chunks
from compressor.numerics.losses import cw_margin


@dataclass(frozen=True)
class Square:
    """The black-box attack of AutoAttack, with its schedule: windows halve after fixed numbers of queries.

    Attributes:
        queries: proposals for each image, a forward pass each, beside the one of its start.
    """

    queries: int = 5000

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise UsageError(f"an attack of {self.queries} queries is no attack.", "Use at least 1 query.")

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, generator: Generator) -> AttackResult:
        """Attack ``x`` ``[B, C, H, W]`` with labels ``y`` ``[B]``; the model is left exactly as it was found."""

        def search(natural: Tensor, labels: Tensor) -> Tensor:
            return self._search(model, natural, labels, threat, generator)

        return attack_correctly_classified(model, x, y, threat, search)

    @torch.no_grad()
    def _search(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, generator: Generator) -> Tensor:
        """The first error found for each image ``[B, C, H, W]``, or the image on which the margin is smallest."""
        x_adv = x.clone()
        index = torch.arange(len(x), device=x.device)
        best, lead = x, x.new_full((len(x),), -torch.inf)
        for query in range(self.queries + 1):
            if query == 0:
                candidate = _square.start(x, threat, generator)
            else:
                candidate = _square.propose(best, x, threat, query - 1, generator)
            logits = in_chunks(model, candidate, chunk_of(model))
            found = cw_margin(logits, y)
            better = found > lead
            best = torch.where(better.view(-1, 1, 1, 1), candidate, best)
            lead = torch.where(better, found, lead)
            misclassified = _misclassified(model, candidate, y, logits, better)
            if bool(misclassified.any()):
                x_adv[index[misclassified]] = candidate[misclassified]
                index, x, y, best, lead = (rows[~misclassified] for rows in (index, x, y, best, lead))
                if len(index) == 0:
                    return x_adv
        x_adv[index] = best
        return x_adv


def _misclassified(model: nn.Module, candidate: Tensor, y: Tensor, logits: Tensor, better: Tensor) -> Tensor:
    """Which candidates the model errs on, bool ``[b]``.

    A surrogate's model is asked only about progress, and about logits that are not finite, whose margin says nothing.
    """
    asked = better | ~logits.isfinite().all(1)
    places = torch.nonzero(asked).squeeze(1)
    if len(places) > 0:
        asked[places] = confirm_misclassified(model, candidate[places], y[places], logits[places])
    return asked


ATTACK = Square()
