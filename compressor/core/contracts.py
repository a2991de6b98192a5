"""What a room's members promise: the shapes of a model family, a dataset, an attack and a method.

Images are float32 ``[B, C, H, W]`` in [0, 1] wherever a tensor crosses one of these lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from torch import Generator, Tensor, nn

    from compressor.core.types import ModelSpec, Threat


class Objective(Protocol):
    """What an ascent maximises: one value per image, each a function of that image alone."""

    def __call__(self, x_adv: Tensor, index: Tensor) -> Tensor:
        """Return ``[b]`` values for ``x_adv`` ``[b, C, H, W]``, the images at positions ``index`` ``[b]`` of the batch.

        ``+inf`` says that an image's goal is reached: it leaves the batch and keeps this ``x_adv``.
        """
        ...


class AttackResult(NamedTuple):
    """``x_adv`` ``[B, C, H, W]`` inside the ball and [0, 1], and whether the model errs on each (bool ``[B]``)."""

    x_adv: Tensor
    broken: Tensor


class Attack(Protocol):
    """A search, inside the threat model's ball, for images that the model gets wrong."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, generator: Generator) -> AttackResult:
        """Attack ``x`` ``[B, C, H, W]`` with labels ``y`` ``[B]``; the model is left exactly as it was found."""
        ...


@runtime_checkable
class Ensemble(Attack, Protocol):
    """An attack that is a list of attacks, each on the images that are robust so far.

    Every stage and batch begins at the random state of the evaluation's seed.

    Attributes:
        is_reference: whether it is run on the model itself rather than on a surrogate.
    """

    is_reference: ClassVar[bool]

    @property
    def stages(self) -> tuple[tuple[str, Attack], ...]:
        """Names with attacks, in order."""
        ...


@dataclass(frozen=True)
class Recognition:
    """A foreign state dict that one family can load.

    Attributes:
        name: the member that fits, such as ``wideresnet-34-10``.
        classes: how many logits it has.
        state: the tensors that the network loads, those its forward never uses left out.
        activations: the activations the keys cannot tell apart, likeliest first.
        normalizes: whether this family's public code normalises inside its forward, out of the state dict's sight.
    """

    name: str
    classes: int
    state: Mapping[str, Tensor]
    activations: tuple[Literal["relu", "silu"], ...] = ("relu",)
    normalizes: bool = False


@dataclass(frozen=True)
class ModelFamily:
    """An architecture and its sizes, whose state-dict names are those of the public CIFAR ports.

    Attributes:
        form: how its names are written, such as ``wideresnet-DEPTH-WIDTH``.
        example: a small member, used by the tests that every family must pass.
        build: the network (without normalisation) that a spec describes; UsageError where the numbers make none.
        recognise: reads keys and shapes; ``None`` where the state dict is of another family.
    """

    form: str
    example: str
    build: Callable[[ModelSpec], nn.Module]
    recognise: Callable[[Mapping[str, Tensor]], Recognition | None]


@dataclass(frozen=True, eq=False)
class Split:
    """Decoded pictures: uint8 ``[N, C, H, W]`` (perhaps memory-mapped) and int64 labels ``[N]``.

    ``origin`` ``[N]`` says where a part's samples lie in the whole split; ``None`` says that this is the whole.
    """

    images: np.ndarray[Any, np.dtype[np.uint8]]
    labels: np.ndarray[Any, np.dtype[np.int64]]
    origin: np.ndarray[Any, np.dtype[np.int64]] | None = None

    def __len__(self) -> int:
        return len(self.labels)


SplitName = Literal["train", "validation", "test"]


class Dataset(Protocol):
    """Pictures in named splits, decoded when first asked for."""

    name: str
    class_names: tuple[str, ...]
    image_size: int

    def has(self, split: SplitName) -> bool:
        """Whether the dataset itself comes with this split."""
        ...

    def load(self, split: SplitName) -> Split:
        """Decode the split, or open its decoded cache."""
        ...


class OpenDataset(Protocol):
    """How a file of the data room opens its dataset: it checks that the data is there, and decodes nothing yet."""

    def __call__(self, argument: str, *, data_dir: Path | None, download: bool, image_size: int) -> Dataset:
        """Open ``NAME:argument`` at a side of ``image_size`` pixels.

        Raises:
            MissingDataError: it is not here, with both ways out in the hint.
            UnreadableDataError: it is here and cannot be used.
        """
        ...


@dataclass(frozen=True)
class Batch:
    """What one step trains on.

    Attributes:
        x: natural images ``[B, C, H, W]`` in [0, 1].
        y: labels ``[B]``.
        teacher_logits: the teacher's on ``x``, ``[B, K]``, if the method asked for them.
        label_smoothing: how much of a label's probability is spread over all classes, in [0, 1), wherever a loss's
            cross-entropy uses labels; attacks use the labels as they are.
    """

    x: Tensor
    y: Tensor
    teacher_logits: Tensor | None = None
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class Progress:
    """How far training is: the epoch (from 0), all epochs, the step within the epoch, and steps in an epoch."""

    epoch: int
    epochs: int
    step: int
    steps: int


TeacherAt = Literal["nothing", "natural", "adversarial"]
AttackMode = Literal["eval", "train", "none"]
LabelsIn = Literal["nothing", "attack", "loss"]
SelectsBy = Literal["robust", "clean"]


class Method(Protocol):
    """A training method: a frozen dataclass of settings with two pure functions.

    It calls no optimizer, switches no mode and moves nothing between devices.

    Attributes:
        teacher_at: what the teacher is asked about: ``nothing``; ``natural`` images, by the loop, which keeps the
            answers; ``adversarial`` images, by the method itself, since no answer serves twice.
        attack_mode: the student's mode during the inner maximisation; ``train`` moves its BatchNorm statistics;
            ``none`` where there is no attack.
        labels_in: where labels enter: ``nothing`` takes unlabelled images too; ``attack`` lets them steer the attack
            or weigh terms; ``loss`` has them in a cross-entropy, which label smoothing acts on. May depend on settings.
        selects_by: which validation accuracy chooses the best checkpoint.
        recipe_defaults: recipe fields that this method's publication sets otherwise than the recipe does.
    """

    teacher_at: ClassVar[TeacherAt]
    attack_mode: ClassVar[AttackMode]
    selects_by: ClassVar[SelectsBy]
    recipe_defaults: ClassVar[Mapping[str, Any]]

    @property
    def labels_in(self) -> LabelsIn:
        """See above."""
        ...

    def inner(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Objective | None:
        """The inner maximisation's objective, or ``None`` where the method trains on natural images."""
        ...

    def outer(
        self, student: nn.Module, teacher: nn.Module | None, batch: Batch, x_adv: Tensor, progress: Progress
    ) -> dict[str, Tensor]:
        """Make the method's forwards in its own order; return named scalar loss terms, ``total`` among them."""
        ...
