"""Where a command computes, and what it was given: device, data, checkpoint, threat."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from cli.output.console import Output
from compressor.checkpoint import LoadedCheckpoint
from compressor.core.contracts import Dataset
from compressor.core.errors import UsageError
from compressor.core.types import DatasetSpec, Threat
from compressor.data.datasets import open_dataset, watch_decoding
from compressor.system.devices import resolve_device, set_threads
from compressor.system.interruption import StopRequest
from compressor.training.session import TeacherRequest, read_teacher, settle_open_questions


@dataclass(frozen=True)
class Inputs:
    """Where a command computes, and what data it was given."""

    data: str | None = None
    data_dir: Path | None = None
    download: bool = False
    device_name: str = "auto"
    threads: int | None = None
    extra_data: Path | None = None

    def device(self) -> torch.device:
        """The device asked for, with the threads set."""
        set_threads(self.threads)
        return resolve_device(self.device_name)

    def words(self) -> list[str]:
        """The options that the next command needs to find the same data."""
        words = ["--data", self.data] if self.data else []
        return words + (["--data-dir", str(self.data_dir)] if self.data_dir else [])

    def open(self, default: Callable[[], str], image_size: int, output: Output) -> Dataset:
        """The dataset asked for, or the default, which is worked out only where none was."""
        spec = DatasetSpec.parse(self.data or default())
        dataset = open_dataset(spec, data_dir=self.data_dir, download=self.download, image_size=image_size)
        output.note(f"data: {spec}, {len(dataset.class_names)} classes, {image_size} pixels")
        return dataset


def default_data(loaded: LoadedCheckpoint) -> str:
    """The dataset that a checkpoint records, else the CIFAR of its class count."""
    recorded = loaded.metadata.get("dataset")
    return dataset_by_record(recorded.get("name") if isinstance(recorded, dict) else None, loaded.spec.classes)


def dataset_by_record(recorded: str | None, classes: int) -> str:
    """The dataset that a file names, else the CIFAR of its class count.

    Raises:
        UsageError: it can't be told; the hint is to name it.
    """
    if recorded == "imagefolder":
        raise UsageError(
            "the model was made with a picture folder, and a file does not record where that is.",
            "Name it with --data imagefolder:DIR.",
        )
    if recorded:
        return recorded
    if classes in (10, 100):
        return f"cifar{classes}"
    raise UsageError(f"there is no default data for {classes} classes.", "Name it with --data SPEC.")


def default_threat(recorded: Any, eps: str | None, norm: str | None) -> Threat:
    """The threat that the options name, else the one that a file records, else L-infinity 8/255."""
    recorded, fallback = recorded if isinstance(recorded, dict) else {}, Threat()
    return Threat(
        cast(Any, norm or recorded.get("norm") or fallback.norm), eps or str(recorded.get("eps") or fallback.eps)
    )


def open_checkpoint(
    path: Path,
    inputs: Inputs,
    output: Output,
    *,
    model: str | None = None,
    normalization: str | None = None,
    activation: str | None = None,
    image_size: int | None = None,
) -> tuple[LoadedCheckpoint, Dataset]:
    """A checkpoint with nothing left open, and the dataset that goes with it."""
    loaded = read_teacher(TeacherRequest(path, model, normalization, activation), image_size=image_size)
    dataset = inputs.open(lambda: default_data(loaded), loaded.spec.image_size, output)
    return settle_open_questions(loaded, dataset, reporter=output, device=inputs.device()), dataset


def decoding_shown(output: Output, stop: StopRequest) -> AbstractContextManager[None]:
    """Show decoding as progress, and hear a stop while it goes on."""

    def on_progress(done: int, total: int) -> None:
        output.advance(done, total, "decoding pictures")
        stop.raise_if_set()

    return watch_decoding(on_progress)
