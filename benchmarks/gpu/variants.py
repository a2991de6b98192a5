"""The ways in which our training is timed and run: recipe fields by name. To add a way, add a line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_BF16 = {"precision": "bf16", "outer_precision": "bf16"}


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        name: as in the tables.
        recipe: fields of the recipe that differ from the method's.
        request: fields of ``RunConfig`` that differ from its defaults.
        warm: whether the label cache has every answer before the first step.
        arithmetic: the unit that most of it computes on, whose measured peak it is held against. fp32 convolutions use
            TF32 wherever torch's switch for it is on.
        late: timed after everything else, since it starts slowly.
    """

    name: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    request: Mapping[str, Any] = field(default_factory=dict)
    warm: bool = False
    arithmetic: str = "fp32"
    late: bool = False


VARIANTS = (
    Variant("fp32, cold cache", {"precision": "fp32"}),
    Variant("fp32, warm cache", {"precision": "fp32"}, warm=True),
    Variant("bf16, cold cache", _BF16, arithmetic="bf16"),
    Variant("bf16, warm cache", _BF16, arithmetic="bf16", warm=True),
    Variant("bf16, warm cache, compiled", _BF16 | {"compile": True}, arithmetic="bf16", warm=True, late=True),
)

# What the real run trains with.
REAL = Variant("bf16", _BF16, arithmetic="bf16")
