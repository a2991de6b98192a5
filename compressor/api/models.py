"""``load_model``: a classifier from a file."""

from __future__ import annotations

import os

from torch import nn

from compressor.api.datasets import Data
from compressor.api.inputs import Inputs, allow_model, default_data, model_source
from compressor.core.reporting import EventReporter, OnEvent
from compressor.models.classifier import Classifier
from compressor.runs.run import Run
from compressor.system.files import as_path
from compressor.training.teacher_file import TeacherRequest, read_teacher, settle_open_questions


def load_model(
    path: str | os.PathLike[str] | Run,
    *,
    model: str | nn.Module | None = None,
    normalization: str | None = None,
    activation: str | None = None,
    image_size: int | None = None,
    data: Data | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    download: bool = False,
    on_progress: OnEvent | None = None,
) -> Classifier:
    """Load a classifier from a checkpoint, our own or anyone's.

    What the keys of a checkpoint leave open, such as the normalisation, is measured on training images.

    Args:
        path: a safetensors or PyTorch file; of a run, its best checkpoint.
        model: the architecture, where the keys do not tell: ``torchvision:NAME``, ``timm:NAME``, code that you trust
            (``python:package.module:factory``), or a module of that architecture.
        normalization: ``none``, ``cifar10``, ``cifar100`` or ``half`` (default: measured).
        activation: ``relu`` or ``silu`` (default: measured).
        image_size: side of the images, in pixels (default: what the file records, else 32).
        data: opened only where something must be measured (default: what the file records, else the CIFAR of its
            number of classes).
        data_dir: where downloaded datasets lie.
        download: whether an absent dataset is fetched.
        on_progress: called with each ``Event``.

    Returns:
        The classifier, on the CPU and in evaluation mode: images ``[B, 3, H, W]`` in [0, 1] to logits ``[B, K]``.

    Raises:
        CompressError: the file is unreadable or unsafe, or fits no architecture.

    Example:
        >>> from compressor import load_model
        >>> model = load_model("teacher.safetensors")
        >>> model.spec.name, model.spec.classes
        ('wideresnet-10-1', 10)
    """
    allow_model(model)
    inputs = Inputs(data, as_path(data_dir), download)
    reporter = EventReporter(on_progress)
    loaded = read_teacher(TeacherRequest(model_source(path), model, normalization, activation), image_size=image_size)
    if not loaded.open_questions:
        return loaded.classifier
    dataset = inputs.open(lambda: default_data(loaded), loaded.spec.image_size, reporter, pair_is="train")
    return settle_open_questions(loaded, dataset, reporter=reporter).classifier
