"""Takes images through the columns of an evaluation, stage by stage: what is known is not done again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.core.contracts import Attack, Ensemble
from compressor.core.reporting import OnProgress
from compressor.core.types import Threat
from compressor.evaluation.decisions import judge
from compressor.evaluation.report import Bits, Classes
from compressor.evaluation.store import BatchOutcome, BatchPosition, EvaluationStore
from compressor.frozen import chunk_of
from compressor.numerics.augment import floats_on_host
from compressor.numerics.randomness import make_generator
from compressor.system.process_group import ProcessGroup

CLEAN = "clean"
"""The column of the natural images."""

_UNKNOWN = -2  # below every answer, so that the largest over all processes is the answer

_Judged = Callable[[Tensor, Tensor, int], BatchOutcome]
"""From a batch of images, their labels and the batch's place to what came of it."""


@dataclass(frozen=True, eq=False)
class ColumnResult:
    """A column that is done.

    Attributes:
        correct: bool ``[N]``: right on the natural image and under this attack.
        predictions: int ``[N]``: what the model says of what the attack returned; see ``Report``.
        stages: their names; empty where the attack has none.
        broken_by: int ``[N]``: the number of the stage that broke each image; -1 where none did.
        outside: how often the attack returned an image outside the ball.
    """

    correct: Bits
    predictions: Classes
    stages: tuple[str, ...]
    broken_by: Classes
    outside: int


class _Found(NamedTuple):
    """What came of the images of a stage, each int32 ``[m]``: the class named, and 1 where broken or outside."""

    predictions: NDArray[np.int32]
    broken: NDArray[np.int32]
    outside: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Stages:
    """What all stages of an evaluation share; its methods give every process the same.

    Attributes:
        model: judges every image that an attack returns.
        attacked: gives what attacks differentiate, made when first asked for.
        images: uint8 ``[N, C, H, W]``, perhaps memory-mapped.
        labels: int64 ``[N]``.
        threat: the ball.
        seed: what every attack's noise is derived from.
        batch_size: images at once.
        device: where to compute.
        store: the batches done so far, and where the next are kept.
        process_group: the processes that take turns.
        progress: told, before the first batch of a stage and after each, ``clean``, a column's name, or ``AA: square``
            for one of its stages, and the images done and in all.
    """

    model: nn.Module
    attacked: Callable[[], nn.Module]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    threat: Threat
    seed: int
    batch_size: int
    device: torch.device | str
    store: EvaluationStore
    process_group: ProcessGroup
    progress: OnProgress

    def natural(self) -> ColumnResult:
        """What the model says of the images as they are."""

        def judged(x: Tensor, y: Tensor, _: int) -> BatchOutcome:
            outcome = judge(self.model, x, y, x, self.threat, chunk_of(self.attacked()))
            return replace(outcome, adversarial=outcome.adversarial[:0])

        found = self._run(BatchPosition(0, 0, 0), CLEAN, np.arange(len(self.labels)), judged)
        return ColumnResult(found.broken == 0, found.predictions.astype(np.int64), (), np.full(len(self.labels), -1), 0)

    def column(self, number: int, name: str, attack: Attack, before: ColumnResult) -> ColumnResult:
        """Run an attack, or its stages one after the other, each on the images robust so far.

        Args:
            number: of the column, from 1.
            name: of the column.
            attack: an ensemble's stages are given, for every batch, a generator of the seed alone, as AutoAttack's
                authors do, so that theirs and ours meet the same noise; a reference is given the model itself.
            before: which images are robust when it begins, and what the model says of the rest.
        """
        stages: tuple[tuple[str, Attack], ...] = (("", attack),)
        if isinstance(attack, Ensemble):
            stages = attack.stages
        right, predictions, outside = before.correct.copy(), before.predictions.copy(), 0
        broken_by = np.full(len(right), -1)
        for stage, (stage_name, part) in enumerate(stages):
            index = np.flatnonzero(right)
            title = f"{name}: {stage_name}" if stage_name else name
            judged = self._attacked_and_judged(part, name, attack if isinstance(attack, Ensemble) else None)
            found = self._run(BatchPosition(number, stage, 0), title, index, judged)
            broken = index[found.broken == 1]
            right[broken], broken_by[broken] = False, stage
            predictions[index] = found.predictions
            outside += int(found.outside.sum())
        return ColumnResult(right, predictions, tuple(name for name, _ in stages if name), broken_by, outside)

    def _attacked_and_judged(self, attack: Attack, name: str, ensemble: Ensemble | None) -> _Judged:
        def judged(x: Tensor, y: Tensor, start: int) -> BatchOutcome:
            target = self.model if ensemble and ensemble.is_reference else self.attacked()
            alone = make_generator(self.seed, "attack", name, start)
            generator = torch.Generator().manual_seed(self.seed) if ensemble else alone
            found = attack(target, x, y, self.threat, generator)
            return judge(self.model, x, y, found.x_adv, self.threat, chunk_of(target))

        return judged

    def _run(self, place: BatchPosition, title: str, index: NDArray[np.intp], judged: _Judged) -> _Found:
        """What came of the images at the positions ``index``, batch by batch."""
        found = np.full((len(_Found._fields), len(index)), _UNKNOWN, dtype=np.int32)
        parts = [
            slice(start, min(start + self.batch_size, len(index))) for start in range(0, len(index), self.batch_size)
        ]
        for part in parts:
            kept = self.store.load(place._replace(start=part.start), index[part])
            if kept is not None:
                found[:, part] = kept.predictions, kept.broken, kept.outside
        self.progress(title, _known(found), len(index))
        for part in parts[self.process_group.rank :: self.process_group.size]:
            if _known(found[:, part]) == part.stop - part.start:
                continue
            x, y = on_device(self.images[index[part]], self.labels[index[part]], self.device)
            outcome = judged(x, y, part.start)
            self.store.save(place._replace(start=part.start), index[part], outcome)
            found[:, part] = outcome.predictions, outcome.broken, outcome.outside
            self.progress(title, max(part.stop, _known(found)), len(index))
        if self.process_group.size > 1 and parts:
            self.process_group.maximum_(found)
            self.progress(title, len(index), len(index))
        return _Found(*found)


def on_device(
    images: NDArray[np.uint8], labels: NDArray[np.int64], device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Float32 images ``[B, C, H, W]`` in [0, 1] and int64 labels ``[B]``."""
    return floats_on_host(images).to(device), torch.from_numpy(labels).to(device)


def _known(found: NDArray[np.int32]) -> int:
    return int((found[0] != _UNKNOWN).sum())
