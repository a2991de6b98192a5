"""What one part of the run is told, as one value that travels to its process as JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Settings:
    """Settings of a part.

    Attributes:
        output: where results go.
        work: where pictures, wheels, caches and runs lie on this machine.
        packed: the folder that ``pack.py`` filled; None where there is none.
        device: ``cuda`` or ``cpu``.
        seconds: the part's budget.
        smoke: tiny sizes, random pictures and a random teacher.
        compiled: whether to time what is compiled too.
        profile: whether to write a table of the most expensive kernels.
        train_seconds: how long the real training may take.
        student: of the real run.
        train_images: of the real run; 0 for all.
        test_images: how many test images are attacked.
        test_workers: processes that run tests; 0 runs them in one.
    """

    output: Path
    work: Path
    packed: Path | None
    device: str
    seconds: float
    smoke: bool = False
    compiled: bool = True
    profile: bool = False
    train_seconds: float = 360.0
    student: str = "resnet18"
    train_images: int = 0
    test_images: int = 1000
    test_workers: int = 4

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """The inverse of ``to_json``."""
        values: dict[str, Any] = json.loads(text)
        for name in ("output", "work", "packed"):
            values[name] = None if values[name] is None else Path(values[name])
        return cls(**values)
