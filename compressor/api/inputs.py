"""Where a call computes, and what it was given: device, data, checkpoint, threat."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from compressor.api.datasets import Data, as_dataset
from compressor.checkpoint import LoadedCheckpoint
from compressor.core.contracts import Dataset, SplitName
from compressor.core.errors import UsageError
from compressor.core.registry import DATASETS
from compressor.core.reporting import Reporter
from compressor.core.types import DatasetSpec, Threat, eps_text
from compressor.data.datasets import open_dataset, watch_decoding
from compressor.models.user_code import allow_user_code
from compressor.runs.run import Run
from compressor.system.devices import resolve_device, set_threads
from compressor.system.files import AnyPath
from compressor.system.interruption import StopRequest
from compressor.training.teacher_file import TeacherRequest, read_teacher, settle_open_questions


@dataclass(frozen=True)
class Inputs:
    """Where a call computes, and what data it was given.

    Attributes:
        data: a name, a dataset or arrays; None for what the model's file records.
        data_dir: where downloaded datasets lie.
        download: whether an absent dataset may be fetched.
        device_name: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        threads: of torch on the CPU; None for all that this process may use.
        extra_data: generated images to mix in.
    """

    data: Data | None = None
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
        words = ["--data", self.data] if isinstance(self.data, str) and self.data else []
        return words + (["--data-dir", str(self.data_dir)] if self.data_dir else [])

    def ready(self, pair_is: SplitName) -> Dataset | None:
        """The dataset, where it is an object or arrays; None where it must be opened by name."""
        if self.data is None or isinstance(self.data, str):
            return None
        return as_dataset(self.data, pair_is)

    def open(
        self, default: Callable[[], str], image_size: int, reporter: Reporter, *, pair_is: SplitName = "test"
    ) -> Dataset:
        """The dataset asked for, or the default, which is worked out only where none was.

        Raises:
            UsageError: it is an object of images of another size.
        """
        given = self.ready(pair_is)
        if given is not None:
            if given.image_size != image_size:
                raise UsageError(
                    f"the images have {given.image_size} pixels a side, and the model takes {image_size}.",
                    "Give images of that size, or image_size where the model takes any.",
                )
            return given
        spec = DatasetSpec.parse(cast(str, self.data) or default())
        dataset = open_dataset(spec, data_dir=self.data_dir, download=self.download, image_size=image_size)
        reporter.note(f"data: {spec}, {len(dataset.class_names)} classes, {image_size} pixels")
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
    if recorded and recorded not in DATASETS.members():
        raise UsageError(
            f"the model was made with {recorded!r}, which is no dataset that has a name here.",
            "Give the data: a name, a dataset or arrays.",
        )
    if recorded:
        return recorded
    if classes in (10, 100):
        return f"cifar{classes}"
    raise UsageError(f"there is no default data for {classes} classes.", "Name it with --data SPEC.")


def default_threat(recorded: Any, eps: str | float | None, norm: str | None) -> Threat:
    """The threat that the options name, else the one that a file records, else L-infinity 8/255."""
    recorded, fallback = recorded if isinstance(recorded, dict) else {}, Threat()
    text = None if eps is None else eps_text(eps)
    return Threat(
        cast(Any, norm or recorded.get("norm") or fallback.norm), text or str(recorded.get("eps") or fallback.eps)
    )


def open_checkpoint(
    request: TeacherRequest, inputs: Inputs, reporter: Reporter, *, image_size: int | None = None
) -> tuple[LoadedCheckpoint, Dataset]:
    """A checkpoint, or a module in memory, with nothing left open, and the dataset that goes with it."""
    given = inputs.ready("test")
    if image_size is None and given is not None:
        image_size = given.image_size
    loaded = read_teacher(request, image_size=image_size)
    dataset = inputs.open(lambda: default_data(loaded), loaded.spec.image_size, reporter)
    return settle_open_questions(loaded, dataset, reporter=reporter, device=inputs.device()), dataset


def progress_shown(reporter: Reporter, stop: StopRequest) -> Callable[[str, int, int], None]:
    """Show what is done of a part as progress, and hear a stop."""

    def on_progress(part: str, done: int, total: int) -> None:
        reporter.advance(done, total, part)
        stop.raise_if_set()

    return on_progress


def decoding_shown(reporter: Reporter, stop: StopRequest) -> AbstractContextManager[None]:
    """Show decoding as progress, and hear a stop while it goes on."""
    return watch_decoding(partial(progress_shown(reporter, stop), "decoding pictures"))


def model_source(given: AnyPath | Run | nn.Module) -> Path | nn.Module:
    """The file of a model (of a run, its best checkpoint), or a module in memory."""
    if isinstance(given, nn.Module):
        return given
    return given.best if isinstance(given, Run) else Path(given)


def allow_model(name: str | nn.Module | None) -> None:
    """Note that the user named this model; see ``compressor.models.user_code``."""
    if isinstance(name, str):
        allow_user_code(name)
