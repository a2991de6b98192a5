"""What an evaluation found: one bit for each image and attack; every rate and interval is computed from those."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from compressor.statistics import wilson_interval
from compressor.types import Threat

Bits = NDArray[np.bool_]
Classes = NDArray[np.int64]
Mode = Literal["alone", "cascade"]


@dataclass(frozen=True)
class Alarm:
    """A sign that the attacks measured less than there is.

    Attributes:
        name: of the check that rang.
        detail: what it found.
        meaning: why that makes a figure untrustworthy.
    """

    name: str
    detail: str
    meaning: str = ""


@dataclass(frozen=True, eq=False)
class Report:
    """The outcome of a suite on some images.

    Attributes:
        threat: the ball that the attacks searched.
        suite: the suite with its version, such as ``quick@1``.
        seed: what the attacks' noise was derived from.
        mode: ``alone``: each attack on all images; ``cascade``: each on what stood before it, bits cumulative.
        clean: bool ``[N]``: right on the natural image.
        attacks: column name to bool ``[N]``: right also under this attack.
        alarms: reasons to distrust the numbers.
        labels: int ``[N]``: the right classes; empty where they were not kept, as in files of an earlier version.
        predictions: column name (``clean`` too) to int ``[N]``: what the model says under this attack; -1 where that
            was not kept.
        broken_by: for a column whose attack has stages, the stages' names, and int ``[N]``: which of them broke each
            image; -1 where none did.
    """

    threat: Threat
    suite: str
    seed: int
    mode: Mode
    clean: Bits
    attacks: Mapping[str, Bits]
    alarms: tuple[Alarm, ...] = ()
    labels: Classes = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    predictions: Mapping[str, Classes] = field(default_factory=dict)
    broken_by: Mapping[str, tuple[tuple[str, ...], Classes]] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """How many images were evaluated."""
        return len(self.clean)

    @property
    def robust(self) -> Bits:
        """Which images are right on the natural image and under every attack, bool ``[N]``: the worst case."""
        return reduce(np.logical_and, self.attacks.values(), self.clean)

    @property
    def trustworthy(self) -> bool:
        """Whether no alarm rang."""
        return not self.alarms

    @property
    def clean_accuracy(self) -> float:
        """The fraction of natural images that the model gets right."""
        return _rate(self.clean)

    @property
    def robust_accuracy(self) -> float:
        """The fraction that no attack of the suite broke."""
        return _rate(self.robust)

    @property
    def accuracies(self) -> dict[str, float]:
        """Each attack's accuracy, by column name."""
        return {name: _rate(bits) for name, bits in self.attacks.items()}

    def to_json(self) -> dict[str, Any]:
        """The fields of ``compress attack --json``: accuracies in 0 to 1, intervals Wilson's at 95 %."""
        return {
            "schema": "compress.attack/1",
            "samples": self.samples,
            "clean_accuracy": self.clean_accuracy,
            "robust_accuracy": self.robust_accuracy,
            "attacks": self.accuracies,
            "intervals": {
                "clean_accuracy": _interval(self.clean),
                "robust_accuracy": _interval(self.robust),
                "attacks": {name: _interval(bits) for name, bits in self.attacks.items()},
            },
            "alarms": [{"name": alarm.name, "detail": alarm.detail} for alarm in self.alarms],
            "norm": self.threat.norm,
            "eps": self.threat.eps,
            "suite": self.suite,
            "seed": self.seed,
            "mode": self.mode,
        }


def _rate(bits: Bits) -> float:
    return int(bits.sum()) / len(bits)


def _interval(bits: Bits) -> list[float]:
    return list(wilson_interval(int(bits.sum()), len(bits)))
