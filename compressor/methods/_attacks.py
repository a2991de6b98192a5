"""The inner maximisations that several methods share, as bases that a method may inherit its ``inner`` from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from compressor.core.contracts import AttackMode, Batch, LabelsIn, Objective, SelectsBy, TeacherAt
from compressor.methods._terms import cross_entropy_objective, teacher_of, teacher_student_kl_objective

if TYPE_CHECKING:
    from torch import nn

UNIFORM_START: Mapping[str, Any] = MappingProxyType({"attack_start": "uniform", "attack_start_scale": 1.0})
"""Recipe fields of an attack that starts anywhere in the ball."""

GAUSSIAN_START: Mapping[str, Any] = MappingProxyType({"attack_start": "gaussian", "attack_start_scale": 0.001})
"""Recipe fields of an attack that starts beside the natural image, as the code of TRADES does."""


class WithoutAttack:
    """A method that trains on natural images alone, and keeps the checkpoint of the best clean accuracy."""

    attack_mode: ClassVar[AttackMode] = "none"
    selects_by: ClassVar[SelectsBy] = "clean"
    recipe_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def inner(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> None:
        """No inner maximisation: the images stay as they are."""


class AdversarialTraining:
    """A method with an attack: on the student in eval mode, and the checkpoint of the best robust accuracy is kept."""

    attack_mode: ClassVar[AttackMode] = "eval"
    selects_by: ClassVar[SelectsBy] = "robust"


class CrossEntropyAttack(AdversarialTraining):
    """A method whose attack maximises the cross-entropy with the labels."""

    def inner(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Objective:
        """Per-image cross-entropy of the student's logits against the labels, to be maximised."""
        return cross_entropy_objective(student, batch)


class TeacherStudentAttack(AdversarialTraining):
    """A method whose attack searches where teacher and student differ most; AdaAD's settings, no labels."""

    teacher_at: ClassVar[TeacherAt] = "adversarial"
    labels_in: ClassVar[LabelsIn] = "nothing"
    recipe_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({**GAUSSIAN_START, "weight_decay": 5e-4})

    def inner(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Objective:
        """Per-image ``KL(T(x') || S(x'))`` in nats, to be maximised; both networks are differentiated."""
        return teacher_student_kl_objective(teacher_of(teacher, type(self).__name__.lower()), student)
