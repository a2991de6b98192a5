"""The verifier's own gradient attack: it goes on until the file errs beyond doubt, not merely by a hair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from compressor.core.contracts import AttackResult
from compressor.core.types import Threat
from compressor.numerics import losses
from compressor.numerics.ascent import ascend
from exporters.file_attacks.target import MARGIN

_SLACK = 1.1  # float32 may round in the file's favour, and what stops here must count there


@dataclass(frozen=True)
class WhiteBox:
    """Projected ascent from a uniform start, keeping the first image that errs by more than the tolerance.

    A room's attack stops as soon as the prediction changes. A file that squeezed its logits around ties could stop it
    there for ever, with a margin too small to prove anything; so here an image counts as misclassified only
    beyond ``tolerance``, or beyond a ten-thousandth of the range of its own logits where that is less: the rule by
    which the file is judged.

    Attributes:
        loss: what it maximises: cross-entropy, the margin of the best wrong class, or ``targeted``, the margin
            ``z_t - z_y`` of one wrong class t, whichever class leads on the way.
        steps: how many gradients are taken.
        step: the length of a step, in radii.
        tolerance: the margin, in logits, beyond which an image counts as broken.
        rank: for ``targeted``, which wrong class: 1 is the likeliest on the natural image.
        temperature: for cross-entropy, what the logits are divided by. Where they are large it is zero to the last bit,
            gradient and all; where they are small, it sees little but their mean.
    """

    loss: Literal["cross_entropy", "cw_margin", "targeted"]
    steps: int = 20
    step: float = 0.25
    tolerance: float = 0.0
    rank: int = 1
    temperature: float = 1.0

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, generator: Generator) -> AttackResult:
        """Attack ``x`` ``[B, C, H, W]`` with labels ``y`` ``[B]``; the model is left exactly as it was found."""
        targets = self._targets(model, x, y) if self.loss == "targeted" else y

        def objective(x_adv: Tensor, index: Tensor) -> Tensor:
            logits = model(x_adv)
            values = self._loss(logits, y[index], targets[index])
            return torch.where(self._misclassified(logits, y[index]), torch.inf, values)

        x_adv = ascend(
            objective, x, threat, generator, steps=self.steps, step_size=self.step * threat.radius, start="uniform"
        )
        with torch.no_grad():
            return AttackResult(x_adv, self._misclassified(model(x_adv), y))

    def _loss(self, logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
        if self.loss == "cross_entropy":
            return losses.cross_entropy(logits / self.temperature, labels)
        if self.loss == "cw_margin":
            return losses.cw_margin(logits, labels)
        rows = torch.arange(len(labels), device=logits.device)
        return logits[rows, targets] - logits[rows, labels]

    @torch.no_grad()
    def _targets(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """The wrong class of this rank, or the least likely one where there are fewer."""
        wrong = model(x).scatter(1, y.unsqueeze(1), float("-inf"))
        rank = min(self.rank, wrong.shape[1] - 1)
        targets: Tensor = wrong.topk(rank, dim=1).indices[:, -1]
        return targets

    def _misclassified(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits = logits.detach()
        own = _SLACK * MARGIN * (logits.amax(1) - logits.amin(1))
        return (losses.cw_margin(logits, labels) > own.clamp_max(self.tolerance)) | ~logits.isfinite().all(1)
