"""The inner maximisation recorded once on a GPU and replayed: its identical steps then cost one launch.

An attack of ten steps launches thousands of small kernels, and each launch costs the CPU more time than the kernel
costs the GPU. A CUDA graph holds all of them. It computes on fixed memory, so every batch is copied there first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.core.contracts import Batch
from compressor.frozen.graphs import Recorder, Recording, record_cuda_graph

LOG = logging.getLogger("compressor.training")

Inner = Callable[[Batch, Tensor], Tensor]
"""From a batch and where to begin ``[B, C, H, W]`` to adversarial images ``[B, C, H, W]``."""


@dataclass(frozen=True)
class _Memory:
    """The fixed tensors that a recording reads, and the recording."""

    batch: Batch
    start: Tensor
    recording: Recording

    def replay(self, batch: Batch, start: Tensor) -> Tensor:
        for mine, theirs in zip(_tensors(self.batch, self.start), _tensors(batch, start), strict=True):
            mine.copy_(theirs, non_blocking=True)
        self.recording.replay()
        return self.recording.output.clone()


class RecordedInner:
    """An inner maximisation that is recorded on its first batch and replayed on every batch of the same shape.

    The first batch is computed both ways. Where the replay differs from the plain computation by more than the plain
    computation differs from itself, or cannot be recorded, every batch is computed plainly.

    Args:
        inner: the plain computation; its model's parameters keep their memory, as a frozen twin's do.
        record: how it is recorded.
    """

    def __init__(self, inner: Inner, record: Recorder = record_cuda_graph) -> None:
        self._inner, self._record = inner, record
        self._memory: _Memory | None = None
        self._shape: tuple[object, ...] | None = None

    @property
    def is_recorded(self) -> bool:
        """Whether batches of the first one's shape are replayed."""
        return self._memory is not None

    def __call__(self, batch: Batch, start: Tensor) -> Tensor:
        """Adversarial images ``[B, C, H, W]``; see ``InnerMaximisation``."""
        if self._shape is None:
            self._shape = _shape(batch, start)
            return self._first(batch, start)
        if self._memory is None or _shape(batch, start) != self._shape:
            return self._inner(batch, start)
        return self._memory.replay(batch, start)

    def _first(self, batch: Batch, start: Tensor) -> Tensor:
        expected = self._inner(batch, start)
        try:
            memory = self._recorded(batch, start)
            found = memory.replay(batch, start)
        except RuntimeError as error:
            LOG.warning("the attack is not replayed as a CUDA graph: %s", str(error).partition("\n")[0])
            return expected
        if not torch.equal(found, expected):
            spread = _difference(self._inner(batch, start), expected)
            if not _difference(found, expected) <= 2 * spread:  # NaN is no agreement
                LOG.warning("the attack is not replayed as a CUDA graph: it gives other images")
                return expected
        self._memory = memory
        return expected

    def _recorded(self, batch: Batch, start: Tensor) -> _Memory:
        own, own_start = _copy(batch), start.clone()
        return _Memory(own, own_start, self._record(lambda: self._inner(own, own_start)))


def _shape(batch: Batch, start: Tensor) -> tuple[object, ...]:
    shapes = [(t.shape, t.dtype) for t in _tensors(batch, start)]
    return (*shapes, batch.teacher_logits is None, batch.label_smoothing)


def _tensors(batch: Batch, start: Tensor) -> list[Tensor]:
    tensors = [batch.x, batch.y, start]
    return tensors if batch.teacher_logits is None else [*tensors, batch.teacher_logits]


def _copy(batch: Batch) -> Batch:
    logits = batch.teacher_logits
    return Batch(batch.x.clone(), batch.y.clone(), None if logits is None else logits.clone(), batch.label_smoothing)


def _difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().mean())
