"""Loops that step in turns, in one process: each steps only while the others wait."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol

import torch

from benchmarks import plain_loop
from benchmarks.gpu.variants import Variant
from benchmarks.noise import Noise, full_label_cache
from compressor.checkpoint import LoadedCheckpoint, load_checkpoint
from compressor.core.errors import Interrupted
from compressor.core.reporting import SilentReporter
from compressor.core.types import ModelSpec
from compressor.models.classifier import build_classifier
from compressor.runs.recipe import resolve
from compressor.runs.run_folder import RunFolder
from compressor.system.interruption import StopRequest
from compressor.training import session
from compressor.training.configuration import RunConfig

# Seconds after which a loop is taken to hang.
_START_LIMIT, _TURN_LIMIT, _CLOSE_LIMIT = 300.0, 120.0, 30.0


def synchronize(device: torch.device) -> None:
    """Wait until the device has done everything that was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Side(Protocol):
    """One loop, ready to step."""

    def step(self, count: int) -> float:
        """Make ``count`` steps; returns their seconds, the device waited for."""
        ...

    def close(self) -> None:
        """End the loop and give its memory back."""
        ...


class PlainSide:
    """The plain loop of ``benchmarks/plain_loop.py``: fp32, default layout, its images in memory on the device."""

    def __init__(self, student: str, teacher: Path, batch: int, device: torch.device, classes: int = 10) -> None:
        self._device = device
        self._student = build_classifier(ModelSpec(student, classes), seed=0).to(device)
        self._teacher = load_checkpoint(teacher).classifier.eval().requires_grad_(False).to(device)
        self._optimizer = torch.optim.SGD(self._student.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4)
        self._x = torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
        self.step(1)  # allocation and the choice of algorithms happen once

    def step(self, count: int) -> float:
        """See ``Side``."""
        synchronize(self._device)
        started = time.perf_counter()
        for _ in range(count):
            plain_loop.step(self._student, self._teacher, self._optimizer, self._x)
        synchronize(self._device)
        return time.perf_counter() - started

    def close(self) -> None:
        """See ``Side``."""
        del self._student, self._teacher, self._optimizer, self._x


def prepare(
    variant: Variant, student: str, teacher: Path, batch: int, steps: int, folder: Path, device: torch.device, seed: int
) -> tuple[RunConfig, LoadedCheckpoint]:
    """A request for one epoch of RSLAD on random pictures, and its teacher; see ``ProductSide``."""
    recipe = resolve("rslad", student, None, {"epochs": 1, "batch_size": batch, **variant.recipe})
    noise = Noise(steps * batch, seed=seed)
    request = RunConfig(recipe, noise, RunFolder(folder / "run"), device, **variant.request)
    return request, load_checkpoint(teacher)


class ProductSide:
    """The product's own ``train``, in a thread that waits after each turn.

    Args:
        variant: recipe and request fields.
        student: name of the model.
        teacher: a checkpoint.
        batch: images a step.
        steps: the most steps that will be asked for; one more is made at once, to warm up.
        folder: empty; the run and its label cache go there.
        device: where to train.
        seed: of the random pictures: sides of different seeds share no label cache.

    Raises:
        Exception: what ``train`` raised before its first step was over.
    """

    def __init__(
        self,
        variant: Variant,
        student: str,
        teacher: Path,
        *,
        batch: int,
        steps: int,
        folder: Path,
        device: torch.device,
        seed: int,
    ) -> None:
        request, loaded = prepare(variant, student, teacher, batch, steps + 1, folder, device, seed)
        self._stop, self._turns = StopRequest(), _Turns(device)
        self._error: BaseException | None = None
        self._ended = False

        def work() -> None:
            try:
                session.train(request, loaded, reporter=self._turns, stop=self._stop)
            except Interrupted:
                pass  # that is how ``close`` ends it
            except BaseException as error:
                # Raised again in the thread that waits.
                self._error = error
            finally:
                self._ended = True
                self._turns.done.release()

        with full_label_cache() if variant.warm else nullcontext():
            self._thread = threading.Thread(target=work, name=variant.name, daemon=True)
            self._thread.start()
            self._wait(_START_LIMIT)
        self.notes = self._turns.notes

    def step(self, count: int) -> float:
        """See ``Side``."""
        self._turns.left = count
        started = time.perf_counter()
        self._turns.go.release()
        self._wait(_TURN_LIMIT)
        return time.perf_counter() - started

    def close(self) -> None:
        """See ``Side``."""
        self._stop.signum = signal.SIGTERM
        self._turns.left = 0
        self._turns.go.release()
        self._thread.join(_CLOSE_LIMIT)

    def _wait(self, seconds: float) -> None:
        if not self._turns.done.acquire(timeout=seconds):
            raise TimeoutError(f"{self._thread.name}: no answer in {seconds:.0f} s.")
        if self._error is not None:
            raise self._error
        if self._ended:
            raise RuntimeError(f"{self._thread.name}: the training ended before its turns did.")


class _Turns(SilentReporter):
    """Lets ``train`` make as many steps as a turn has, and holds it until the next turn."""

    def __init__(self, device: torch.device) -> None:
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.left, self.notes = 1, list[str]()
        self._device = device

    def advance(self, done: int, total: int, detail: str = "") -> None:
        """A step is done: hand over after the last one of the turn."""
        self.left -= 1
        if self.left > 0:
            return
        synchronize(self._device)
        self.done.release()
        self.go.acquire()

    def note(self, text: str) -> None:
        """Keep what the run chose."""
        self.notes.append(text)

    def warn(self, text: str) -> None:
        """Keep it too."""
        self.notes.append(text)
