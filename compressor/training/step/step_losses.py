"""The loss terms of one step, over its passes and its processes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from compressor.system.process_group import ProcessGroup


class StepLosses:
    """Collects a step's terms, pass by pass; they are read once, since reading waits for a GPU."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._passes: list[Tensor] = []

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Add a pass's terms, scalars by name."""
        self._names = list(terms)
        self._passes.append(torch.stack([value.detach().float() for value in terms.values()]))

    def means(self, process_group: ProcessGroup) -> dict[str, float]:
        """Each term's mean over the passes and over all processes: the shares of a step are of one size."""
        sums = torch.stack(self._passes).double().sum(0).tolist()
        count = len(self._passes) * process_group.size
        return dict(zip(self._names, (total / count for total in process_group.sum(sums)), strict=True))
