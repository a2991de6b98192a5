"""The model's answer to an image depends on the images that it came with."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from compressor.evaluation.alarms._contract import AlarmCheck, ExaminedEvaluation, logits_differ
from compressor.numerics.randomness import derive_seed
from compressor.numerics.sampling import random_order

_COPIES = 4  # of one image in a batch
_FEW = 4  # images that are asked for among copies, and alone


def _find(examined: ExaminedEvaluation) -> str | None:
    """Ask for images among copies of themselves, in shuffled halves, and alone, and count those with another answer.

    Of a model that answers one batch twice in two ways nothing can be said here: that is another check's finding.
    """
    if bool(examined.is_randomised.any()):
        return None
    for company, rows, logits in _asked(examined):
        count = int(logits_differ(examined.logits[rows], logits).sum())
        if count:
            return f"{count} of {len(rows)} images get other logits {company} than in the batch of the sample"
    return None


@torch.no_grad()
def _asked(examined: ExaminedEvaluation) -> Iterator[tuple[str, Tensor, Tensor]]:
    x, size = examined.x, examined.batch_size
    order = torch.from_numpy(random_order(derive_seed(examined.seed, "alarm", "order"), len(x))).to(x.device)
    few = order[:_FEW]
    # Copies come first: BatchNorm in training mode cannot always take an image alone, and copies raise the alarm.
    copies = [examined.model(x[row].repeat(min(_COPIES, size), 1, 1, 1))[:1] for row in torch.split(few, 1)]
    yield "among copies of themselves", few, torch.cat(copies)
    halves = torch.split(order, min(size, max(1, len(x) // 2)))
    yield "in shuffled batches", order, torch.cat([examined.model(x[rows]) for rows in halves])
    yield "alone", few, torch.cat([examined.model(x[row]) for row in torch.split(few, 1)])


CHECK = AlarmCheck(
    "An attack changes all images of a batch at once, so what broke an image, or did not, may be its companions: "
    "put the model in eval mode, with BatchNorm's running statistics, and evaluate again.",
    _find,
)
