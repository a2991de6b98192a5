"""What a run chooses for itself, once: it is written down, and a resumed run keeps to it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from torch import Tensor, nn

from compressor.core.contracts import Method
from compressor.core.errors import UsageError
from compressor.frozen import FrozenPrecision, choose_precision
from compressor.runs.recipe import Recipe
from compressor.system.files import write_json

# On a CPU a forward pass of a large teacher is slow, and tells its precisions apart on few images. A GPU is filled by
# whole batches only.
_TEACHER_SAMPLE = 8


@dataclass(frozen=True)
class Choices:
    """Precisions of the frozen twin and of the teacher; ``None`` where the run has none."""

    twin: FrozenPrecision | None
    teacher: FrozenPrecision | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for files."""
        return asdict(self)


def uses_twin(recipe: Recipe, method: Method) -> bool:
    """Whether a run attacks a frozen twin: its method attacks in eval mode, and the recipe does not forbid it."""
    return recipe.frozen_twin and method.attack_mode == "eval"


def make_choices(
    recipe: Recipe, method: Method, student: nn.Module, teacher: nn.Module | None, sample: Tensor
) -> Choices:
    """Follow the recipe, and measure where it says ``auto``.

    Args:
        recipe: its ``precision`` decides.
        method: tells whether there is a twin, and whether the teacher is differentiated.
        student: on its device.
        teacher: likewise.
        sample: images ``[B, C, H, W]`` in [0, 1] on that device, as many as the twin computes at once.
    """

    def choose(model: nn.Module, images: Tensor, *, with_gradient: bool) -> FrozenPrecision:
        if recipe.precision != "auto":
            return recipe.precision
        return choose_precision(model, images, with_gradient=with_gradient)

    few = sample[:_TEACHER_SAMPLE] if sample.device.type == "cpu" else sample

    return Choices(
        twin=choose(student, sample, with_gradient=True) if uses_twin(recipe, method) else None,
        teacher=None if teacher is None else choose(teacher, few, with_gradient=method.teacher_at == "adversarial"),
    )


def read_choices(path: Path) -> Choices | None:
    """What an earlier start of the run chose, or None.

    Raises:
        UsageError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        choices = Choices(**values)
        if not {choices.twin, choices.teacher} <= {None, *get_args(FrozenPrecision)}:
            raise ValueError("unknown precision")
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.", "Choose another --run.") from None
    return choices


def write_choices(path: Path, choices: Choices) -> None:
    """Write them down before anything is computed with them."""
    write_json(path, choices.to_dict())
