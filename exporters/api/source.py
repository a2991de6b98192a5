"""What is exported: a checkpoint or a module in memory, with the data that goes with it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from compressor.api.inputs import Inputs, open_checkpoint
from compressor.core.contracts import Dataset
from compressor.core.reporting import Reporter
from compressor.models.classifier import Classifier
from compressor.training.teacher_file import TeacherRequest
from exporters.artifact.exportable import Exportable, ModuleInMemory


def open_source(
    source: Path | nn.Module,
    inputs: Inputs,
    reporter: Reporter,
    *,
    model: str | nn.Module | None = None,
    normalization: str | None = None,
    activation: str | None = None,
    image_size: int | None = None,
) -> tuple[Exportable, Dataset]:
    """A classifier with nothing left open, and the dataset that goes with it.

    Args:
        source: a checkpoint, or a module that takes float32 ``[B, 3, H, W]`` in [0, 1] and gives logits ``[B, K]``.
        inputs: the data.
        reporter: told what is found out.
        model: a checkpoint's architecture, where its keys do not tell.
        normalization: a checkpoint's, by name.
        activation: a checkpoint's.
        image_size: side of the images in pixels, where the source does not record it.

    Raises:
        CompressError: the source or the data cannot be used, or they do not fit each other.
    """
    loaded, dataset = open_checkpoint(
        TeacherRequest(source, model, normalization, activation), inputs, reporter, image_size=image_size
    )
    if isinstance(source, nn.Module):
        return ModuleInMemory(loaded.classifier, loaded.spec, is_plain=not isinstance(source, Classifier)), dataset
    return loaded, dataset
