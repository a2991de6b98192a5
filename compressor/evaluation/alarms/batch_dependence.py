"""The model's answer to an image depends on the images that it came with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from compressor.evaluation.alarms._answers import logits_differ
from compressor.evaluation.alarms._contract import ExaminedEvaluation
from compressor.numerics.randomness import derive_seed
from compressor.numerics.sampling import random_order


@dataclass(frozen=True)
class BatchDependence:
    """Ask for images among copies of themselves, in shuffled halves, and alone.

    Of a model that answers one batch twice in two ways nothing can be said here: that is another check's finding.

    Attributes:
        copies: how many of one image make a batch.
        few: how many images are asked for so, and alone.
    """

    meaning: ClassVar[str] = (
        "An attack changes all images of a batch at once, so what broke an image, or did not, may be its companions: "
        "put the model in eval mode, with BatchNorm's running statistics, and evaluate again."
    )

    copies: int = 4
    few: int = 4

    def __call__(self, examined: ExaminedEvaluation) -> str | None:
        """Count the images that get another answer, in the first company where any does."""
        if bool(examined.is_randomised.any()):
            return None
        for company, rows, logits in self._asked(examined):
            count = int(logits_differ(examined.logits[rows], logits).sum())
            if count:
                return f"{count} of {len(rows)} images get other logits {company} than in the batch of the sample"
        return None

    @torch.no_grad()
    def _asked(self, examined: ExaminedEvaluation) -> Iterator[tuple[str, Tensor, Tensor]]:
        x, size = examined.x, examined.batch_size
        order = torch.from_numpy(random_order(derive_seed(examined.seed, "alarm", "order"), len(x))).to(x.device)
        few = order[: self.few]
        # Copies come first: BatchNorm in training mode cannot always take an image alone, and copies raise the alarm.
        copies = [examined.model(x[row].repeat(min(self.copies, size), 1, 1, 1))[:1] for row in torch.split(few, 1)]
        yield "among copies of themselves", few, torch.cat(copies)
        halves = torch.split(order, min(size, max(1, len(x) // 2)))
        yield "in shuffled batches", order, torch.cat([examined.model(x[rows]) for rows in halves])
        yield "alone", few, torch.cat([examined.model(x[row]) for row in torch.split(few, 1)])


CHECK = BatchDependence()
