"""A few steps of the product's training under torch's profiler."""

from __future__ import annotations

import signal
from pathlib import Path

import torch

from benchmarks.gpu.turns import prepare, synchronize
from benchmarks.gpu.variants import Variant
from benchmarks.noise import full_label_cache
from compressor.core.errors import Interrupted
from compressor.core.reporting import SilentReporter
from compressor.system.interruption import StopRequest
from compressor.training import session

_WARM_UP = 3
_ROWS, _NAME_WIDTH = 40, 70


def profile_steps(
    variant: Variant, student: str, teacher: Path, *, batch: int, steps: int, folder: Path, device: torch.device
) -> str:
    """A table of the operations and kernels that take most of ``steps`` steps, after a few that are not counted.

    The label cache is warm. The profiler must start in the thread that trains, and in the one that imported torch, so
    the training runs in this thread and is asked to stop when the table is complete.
    """
    request, loaded = prepare(variant, student, teacher, batch, _WARM_UP + steps + 1, folder / "profile", device, 99)
    stop = StopRequest()
    watch = _Watch(steps, device, stop)
    try:
        with full_label_cache():
            session.train(request, loaded, reporter=watch, stop=stop)
    except Interrupted:
        pass  # that is how it ends
    key = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    averages = watch.profiler.key_averages()
    table: str = averages.table(sort_by=key, row_limit=_ROWS, max_name_column_width=_NAME_WIDTH)
    return table


class _Watch(SilentReporter):
    """Starts the profiler after the warm-up, and ends it and the training some steps later."""

    def __init__(self, steps: int, device: torch.device, stop: StopRequest) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self.profiler = torch.profiler.profile(activities=activities)
        self._done, self._steps, self._device, self._stop = 0, steps, device, stop

    def advance(self, done: int, total: int, detail: str = "") -> None:
        """A step is over."""
        self._done += 1
        if self._done == _WARM_UP:
            synchronize(self._device)
            self.profiler.start()
        elif self._done == _WARM_UP + self._steps:
            synchronize(self._device)
            self.profiler.stop()
            self._stop.signum = signal.SIGTERM
