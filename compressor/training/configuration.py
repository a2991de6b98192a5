"""What one run is: its recipe, its data, its folder, and where it computes. Passed whole from the start to the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from compressor.core.contracts import Dataset
from compressor.core.errors import UsageError
from compressor.core.types import ModelSpec
from compressor.data.extra_data import check_extra_data
from compressor.models.classifier import build_empty_network
from compressor.runs.recipe import Recipe
from compressor.runs.run_folder import RunFolder
from compressor.system import launch
from compressor.training.mixture import check_mixture
from compressor.training.plan import count_shares

DEFAULT_LABEL_CACHE_LIMIT = 8 * 10**9


@dataclass(frozen=True)
class RunConfig:
    """One run, checked as far as it can be before anything is computed or written.

    The recipe decides what is computed, with the data and the teacher. The rest changes no result.

    Attributes:
        recipe: what to do.
        dataset: what to train on.
        folder: the run folder.
        device: where to compute.
        resume: whether the folder may exist, and is then gone on with.
        label_cache_limit: bytes that a full label cache may take; 0 keeps none.
        profile: whether to show where a step's time goes, exactly, and to write ``profile.json``.
        extra_data: generated images to mix in.

    Raises:
        CompressError: the model cannot be built, a batch cannot be parted among the processes, the extra data does not
            fit, or the device cannot do it.
    """

    recipe: Recipe
    dataset: Dataset
    folder: RunFolder
    device: torch.device
    resume: bool = False
    label_cache_limit: int = DEFAULT_LABEL_CACHE_LIMIT
    profile: bool = False
    extra_data: Path | None = None

    def __post_init__(self) -> None:
        recipe = self.recipe
        build_empty_network(self.spec)
        check_mixture(recipe, count_shares(recipe, launch.world_size()), has_data=self.extra_data is not None)
        if self.extra_data is not None:
            check_extra_data(self.extra_data, image_size=recipe.image_size, needs_labels=self.needs_labels)
        if recipe.sync_batchnorm and self.device.type != "cuda":
            raise UsageError("BatchNorm can be synchronised between GPUs only.", "Leave --sync-batchnorm out.")

    @property
    def spec(self) -> ModelSpec:
        """The model to train."""
        return ModelSpec(self.recipe.model, len(self.dataset.class_names), self.recipe.image_size)

    @property
    def needs_teacher(self) -> bool:
        """Whether the method asks a teacher anything."""
        return self.recipe.build_method().teacher_at != "nothing"

    @property
    def needs_labels(self) -> bool:
        """Whether the method uses labels."""
        return self.recipe.build_method().labels_in != "nothing"


def refuse_missing_teacher(recipe: Recipe) -> None:
    """Refuse a method that asks a teacher, where there is none.

    Raises:
        UsageError: likewise.
    """
    if recipe.build_method().teacher_at != "nothing":
        raise UsageError(f"the method {recipe.method} needs a teacher.", "Use `compress distill --teacher FILE`.")
