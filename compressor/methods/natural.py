"""Natural training: cross-entropy on the natural images, no attack, no teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch.nn.functional as F

from compressor.contracts import Batch, Progress

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Natural:
    """``L = CE(f(x), y)``, the mean over the batch."""

    teacher_at: ClassVar[Literal["nothing", "natural", "adversarial"]] = "nothing"
    attack_mode: ClassVar[Literal["eval", "train"]] = "eval"
    selects_by: ClassVar[Literal["robust", "clean"]] = "clean"
    recipe_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def inner(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> None:
        """No inner maximisation: the images stay as they are."""

    def outer(
        self, student: nn.Module, teacher: nn.Module | None, batch: Batch, x_adv: Tensor, progress: Progress
    ) -> dict[str, Tensor]:
        """Return the cross-entropy of the logits on ``batch.x`` against the labels."""
        return {"total": F.cross_entropy(student(batch.x), batch.y)}


METHOD = Natural
