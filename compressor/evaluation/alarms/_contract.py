"""What a check is, and what it is shown: the model, a sample of the images, and what the attacks found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.core.types import Threat
from compressor.evaluation.report import Bits, Report
from compressor.evaluation.suites import Suite
from compressor.numerics.losses import cw_margin, is_wrong

_OF_THE_RANGE = 1e-4
_ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class ExaminedEvaluation:
    """An evaluation under examination; what several checks need is computed once, when first asked for.

    Attributes:
        model: decides; logits ``[B, K]`` from float images in [0, 1]; in eval mode while checks run.
        attacked: what the attacks differentiate: the model itself, or a ``Surrogate`` of it.
        x: float32 ``[n, C, H, W]`` in [0, 1]: the sample.
        y: int64 ``[n]``: its labels.
        index: int64 ``[n]``: where the sample lies among the images of the report.
        threat: the ball that the attacks searched.
        suite: the attacks that were run.
        report: what they found.
        seed: fixes every random choice of a check.
        batch_size: the most images at once.
    """

    model: nn.Module
    attacked: nn.Module
    x: Tensor
    y: Tensor
    index: NDArray[np.int64]
    threat: Threat
    suite: Suite
    report: Report
    seed: int
    batch_size: int

    @cached_property
    def logits(self) -> Tensor:
        """The model's logits of the sample, ``[n, K]``."""
        return self.ask(self.x)

    @cached_property
    def is_randomised(self) -> Tensor:
        """Which images of the sample get another answer when they are asked for again, twice, bool ``[n]``."""
        return logits_differ(self.logits, self.ask(self.x)) | logits_differ(self.logits, self.ask(self.x))

    @cached_property
    def right(self) -> Tensor:
        """Which images of the sample the model gets right unattacked, bool ``[n]``."""
        return ~is_wrong(self.logits, self.y)

    @cached_property
    def robust(self) -> Bits:
        """Which images of the sample no attack of the suite broke, bool ``[n]``."""
        bits: Bits = self.report.robust[self.index]
        return bits

    @cached_property
    def is_differentiable(self) -> bool:
        """Whether gradients reach the images: a model that answers from elsewhere may take queries alone."""
        with torch.enable_grad():
            return bool(self.attacked(self.x[:2].detach().requires_grad_()).requires_grad)

    @torch.no_grad()
    def ask(self, x: Tensor) -> Tensor:
        """The model's logits ``[B, K]`` of images ``[B, C, H, W]``, at most a batch at once."""
        return torch.cat([self.model(part) for part in torch.split(x, self.batch_size)])


@dataclass(frozen=True)
class AlarmCheck:
    """A sign that a figure may be better than the model; its name is its file's, underscores as hyphens.

    Attributes:
        meaning: one sentence: why a figure cannot be trusted then, and what to do.
        find: looks.
    """

    meaning: str
    find: Callable[[ExaminedEvaluation], str | None]

    def __call__(self, examined: ExaminedEvaluation) -> str | None:
        """What was found, with its counts; ``None`` where there is nothing to find."""
        return self.find(examined)


def logits_differ(first: Tensor, second: Tensor) -> Tensor:
    """Which images got two answers, bool ``[B]``.

    A logit may differ by 1e-4 of its image's range of logits and 1e-5 of its own size: kernels for other batch sizes
    add in another order. The decision may differ only where the lead is within that rounding; a logit that is not
    finite must be so both times.

    Args:
        first: logits ``[B, K]``.
        second: logits ``[B, K]`` of the same images.
    """
    first, second = first.double(), second.double()
    finite = first.isfinite().all(1)
    spread = first.amax(1) - first.amin(1)
    rounding = _ROUNDING * first.abs().amax(1)
    off = (first - second).abs().amax(1) > _OF_THE_RANGE * spread + rounding
    decided = first.argmax(1)
    turned = (second.argmax(1) != decided) & (-cw_margin(first, decided) > rounding)
    return torch.where(finite, off | turned | ~second.isfinite().all(1), second.isfinite().all(1))
