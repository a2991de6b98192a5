"""The student as the outer step calls it: for one process or many, compiled or not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import nn

from compressor.models.classifier import Classifier
from compressor.runs.recipe import Recipe
from compressor.system.process_group import COLLECTIVE_TIMEOUT, ProcessGroup


@dataclass(frozen=True)
class Parallel:
    """Processes and their model.

    Attributes:
        accelerator: what the launcher set up.
        device: this process's.
        process_group: the processes.
    """

    accelerator: Accelerator
    device: torch.device
    process_group: ProcessGroup

    @classmethod
    def enter(cls, device: torch.device) -> Parallel:
        """Join the processes that a launcher started; alone where there was none.

        Args:
            device: this process's: a launcher's environment has decided its number.
        """
        # Each step makes two forwards before one backward. Broadcasting buffers at each forward would change
        # BatchNorm's statistics between them, under the first one's graph; the team averages them after the step.
        handlers = [
            DistributedDataParallelKwargs(broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=COLLECTIVE_TIMEOUT),
        ]
        accelerator = Accelerator(cpu=device.type == "cpu", kwargs_handlers=handlers)
        return cls(accelerator, accelerator.device, ProcessGroup.current(accelerator.device))

    def place(self, student: Classifier, recipe: Recipe) -> Classifier:
        """Bring the student to the device, channels-last, with synchronised BatchNorm if the recipe asks for it."""
        if recipe.sync_batchnorm:
            student = nn.SyncBatchNorm.convert_sync_batchnorm(student)  # type: ignore[no-untyped-call]
        # Channels-last is what convolutions of every backend are fastest in; the numbers differ in rounding alone.
        return student.to(self.device).to(memory_format=torch.channels_last)

    def wrap(self, student: nn.Module, recipe: Recipe) -> tuple[nn.Module, Callable[[], AbstractContextManager[Any]]]:
        """The callable for the outer step, and a context in which its gradients stay in this process."""
        with warnings.catch_warnings():
            # Newer releases of torch have another name for this setting; the ones we support know this one.
            warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
            wrapped = self.accelerator.prepare_model(student)
        forward = cast(nn.Module, torch.compile(wrapped)) if recipe.compile else wrapped
        return forward, lambda: self.accelerator.no_sync(wrapped)
