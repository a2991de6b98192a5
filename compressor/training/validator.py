"""Validation at the end of each epoch: the accuracies that select the best checkpoint, always on equal terms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from compressor.core.contracts import Split
from compressor.evaluation.quick import QuickAccuracy, measure, twin_of
from compressor.frozen import FrozenTwin
from compressor.runs.recipe import Recipe
from compressor.system.process_group import ProcessGroup


class Validator:
    """Measures the model that a run would save.

    The twin that its attack differentiates is folded once, and brought up to date when the model has moved.
    """

    def __init__(self, recipe: Recipe, validation: Split, device: torch.device, process_group: ProcessGroup) -> None:
        self._recipe, self._device, self._process_group = recipe, device, process_group
        self._images, self._labels = torch.from_numpy(validation.images), torch.from_numpy(validation.labels)
        self._model: nn.Module | None = None
        self._twin: FrozenTwin | None = None

    def measure(self, model: nn.Module, on_batch: Callable[[], None]) -> QuickAccuracy:
        """Clean and PGD accuracy of a model on the device; ``on_batch`` may raise to stop."""
        return measure(
            model,
            self._images,
            self._labels,
            self._recipe.threat,
            steps=self._recipe.selection_steps,
            seed=self._recipe.seed,
            device=self._device,
            process_group=self._process_group,
            on_batch=on_batch,
            twin=self._twin_of(model),
        )

    def _twin_of(self, model: nn.Module) -> FrozenTwin:
        """Another model has another twin: with SWA, the average takes the student's place in the midst of a run."""
        if self._twin is None or self._model is not model:
            self._model, self._twin = model, twin_of(model, self._images, self._device)
        else:
            self._twin.refresh()
        return self._twin
