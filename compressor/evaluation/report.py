"""What an evaluation found: one bit for each image and attack; every rate and interval is computed from those."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal

import numpy as np

from compressor.core.notebook import html_table, percent
from compressor.core.types import Threat
from compressor.evaluation import tables
from compressor.evaluation.tables import Bits, Classes
from compressor.numerics.statistics import wilson_interval

__all__ = ["Alarm", "Bits", "Classes", "Mode", "Report"]

Mode = Literal["alone", "cascade"]


@dataclass(frozen=True)
class Alarm:
    """A sign that the attacks measured less than there is.

    Attributes:
        name: of the check that raised it.
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
        mode: ``alone``: each attack on all images; ``cascade``: each on the images robust so far, bits cumulative.
        clean: bool ``[N]``: right on the natural image.
        attacks: column name to bool ``[N]``: right also under this attack.
        alarms: reasons to distrust the numbers.
        labels: int ``[N]``: the right classes; empty where they were not kept, as in files of an earlier version.
        predictions: column name (``clean`` too) to int ``[N]``: what the model says of what each attack returned, and
            of the natural image where there was nothing to attack; -1 where its logits are not finite. Empty where
            labels are.
        broken_by: for a column whose attack has stages, the stages' names, and int ``[N]``: which of them broke each
            image; -1 where none did.
        outside: column name to how often an attack returned an image outside the ball, outside [0, 1] or not finite.
            Those count for nothing.
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
    outside: Mapping[str, int] = field(default_factory=dict)

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
        """Whether no alarm was raised."""
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

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Wilson's 95 % interval of each accuracy: ``clean``, each attack by column name, and ``robust``."""
        columns = {"clean": self.clean, **self.attacks, "robust": self.robust}
        return {name: _interval(bits) for name, bits in columns.items()}

    @property
    def unique_successes(self) -> dict[str, int]:
        """How many images each column broke that no other did; in a cascade, of those that were robust so far."""
        count = tables.unique_successes if self.mode == "alone" else tables.cascade_successes
        return count(self.clean, self.attacks)

    @property
    def worst_case_predictions(self) -> Classes:
        """What the model says of each image in the worst case, int ``[N]``."""
        return tables.worst_case_predictions(self.clean, self.attacks, self.predictions)

    def to_json(self) -> dict[str, Any]:
        """The fields of ``compress attack --json``: accuracies in 0 to 1, intervals Wilson's at 95 %.

        ``classes`` and ``confusion`` (right class to what the model says in the worst case to images) are null where
        labels were not kept.
        """
        kept = len(self.labels) > 0
        return {
            "schema": "compress.attack/1",
            "samples": self.samples,
            "clean_accuracy": self.clean_accuracy,
            "robust_accuracy": self.robust_accuracy,
            "attacks": self.accuracies,
            "intervals": {
                "clean_accuracy": list(_interval(self.clean)),
                "robust_accuracy": list(_interval(self.robust)),
                "attacks": {name: list(_interval(bits)) for name, bits in self.attacks.items()},
            },
            "trustworthy": self.trustworthy,
            "alarms": [{"name": alarm.name, "detail": alarm.detail, "meaning": alarm.meaning} for alarm in self.alarms],
            "unique": self.unique_successes,
            "broken_by": {name: tables.stage_counts(*stages) for name, stages in self.broken_by.items()},
            "outside": dict(self.outside),
            "classes": tables.class_table(self.labels, self.clean, self.robust) if kept else None,
            "confusion": tables.confusion_counts(self.labels, self.worst_case_predictions) if kept else None,
            "norm": self.threat.norm,
            "eps": self.threat.eps,
            "suite": self.suite,
            "seed": self.seed,
            "mode": self.mode,
        }

    def _repr_html_(self) -> str:
        """Return a table of the accuracies, for a notebook."""
        columns = {"clean": self.clean, **self.attacks, "worst case": self.robust}
        rows = [
            (name, percent(_rate(bits)), "{} to {}".format(*map(percent, _interval(bits))), int(bits.sum()), len(bits))
            for name, bits in columns.items()
        ]
        title = f"{self.suite}, {self.threat}, seed {self.seed}{'' if self.trustworthy else ', NOT TRUSTWORTHY'}"
        notes = [f"not trustworthy: {alarm.name}: {alarm.detail}. {alarm.meaning}".rstrip() for alarm in self.alarms]
        return html_table(title, ["attack", "accuracy", "95 % interval", "correct", "images"], rows, notes)


def _rate(bits: Bits) -> float:
    return int(bits.sum()) / len(bits)


def _interval(bits: Bits) -> tuple[float, float]:
    return wilson_interval(int(bits.sum()), len(bits))
