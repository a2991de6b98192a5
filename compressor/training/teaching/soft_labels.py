"""The teacher's answers for a batch: from the label cache where the run counts on it, else from the teacher."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compressor.numerics.sampling import Indices
from compressor.training.pictures import ready_to_travel
from compressor.training.teaching.label_cache import LabelCache, LabelView, round_labels
from compressor.training.teaching.label_file import Logits, Mask
from compressor.training.teaching.teacher import FrozenTeacher

NOT_CACHED = -1
"""The index of an image that is none of the dataset's: the teacher is asked about it each time, nothing is kept."""


@dataclass(frozen=True)
class CachedLabels:
    """What the cache had for a batch: float16 ``[B, K]``, and bool ``[B]``, which rows of it count."""

    logits: Logits
    known: Mask


@dataclass(frozen=True)
class _OnTheWay:
    """Answers that travel from the device to the host, to be kept when they have arrived."""

    index: Indices
    variants: Indices
    answers: Tensor
    arrived: torch.cuda.Event


class SoftLabels:
    """Asks the teacher about natural images, and no image twice.

    Args:
        teacher: the teacher.
        cache: its kept answers, or None.
        view: which of them this run counts on; None where there is no cache.
    """

    def __init__(self, teacher: FrozenTeacher, cache: LabelCache | None = None, view: LabelView | None = None) -> None:
        self._teacher, self._cache, self._view = teacher, cache, view
        self._on_the_way: _OnTheWay | None = None
        self.asked = self.answered = 0

    def look_up(self, index: Indices, variants: Indices) -> CachedLabels | None:
        """What the cache has for these images; reads the disk, and may run beside the computation.

        Args:
            index: ``[B]``, positions in the dataset's whole training split, or ``NOT_CACHED``.
            variants: ``[B]``.
        """
        if self._cache is None or self._view is None:
            return None
        kept = np.flatnonzero(index != NOT_CACHED)
        answers, there = self._cache.read(index[kept], variants[kept])
        logits, known = np.zeros((len(index), answers.shape[1]), answers.dtype), np.zeros(len(index), np.bool_)
        logits[kept], known[kept] = answers, there & self._view.knows(index[kept], variants[kept])
        return CachedLabels(logits, known)

    def answer(self, x: Tensor, index: Indices, variants: Indices, found: CachedLabels | None) -> Tensor:
        """Logits ``[B, K]`` of natural images ``[B, C, H, W]``, float32, rounded alike whether kept or new."""
        self.asked += len(x)
        if found is None:
            return round_labels(self._teacher.soft_labels(x))
        self.answered += int(found.known.sum())
        logits = ready_to_travel(found.logits, x.device).to(x.device, torch.float32, non_blocking=True)
        missing = np.flatnonzero(~found.known)
        if len(missing):
            rows = ready_to_travel(missing, x.device).to(x.device, non_blocking=True)
            new = round_labels(self._teacher.soft_labels(x[rows]))
            logits[rows] = new
            self._keep(index[missing], variants[missing], new)
        return logits

    def _keep(self, index: Indices, variants: Indices, new: Tensor) -> None:
        """Write new answers to the cache, those of a GPU when the next ones come: by then they have arrived."""
        self._write_arrived()
        if new.device.type != "cuda":
            self._write(index, variants, new)
            return
        answers = torch.empty(new.shape, dtype=new.dtype, pin_memory=True).copy_(new, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()
        self._on_the_way = _OnTheWay(index, variants, answers, arrived)

    def _write_arrived(self) -> None:
        if (waiting := self._on_the_way) is not None:
            self._on_the_way = None
            waiting.arrived.synchronize()
            self._write(waiting.index, waiting.variants, waiting.answers)

    def _write(self, index: Indices, variants: Indices, answers: Tensor) -> None:
        if self._cache is not None:
            kept = index != NOT_CACHED
            self._cache.write(index[kept], variants[kept], answers.cpu().numpy()[kept].astype(np.float16))

    def end_epoch(self, index: Indices, variants: Indices) -> None:
        """Count from now on on all answers of an epoch, whichever process has asked for them."""
        self._write_arrived()
        if self._view is not None:
            self._view.add(index, variants)

    def state(self) -> Tensor | None:
        """Which answers the run counts on, as bytes for its saved state; ``None`` without a cache."""
        self._write_arrived()
        packed = None if self._view is None else self._view.pack()
        return None if packed is None else torch.frombuffer(bytearray(packed), dtype=torch.uint8)
