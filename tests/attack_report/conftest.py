"""A linear classifier, whose every distance to an error has a formula, and findings that take no attack to make."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from compressor.attack_report import AttackedModel, AttackedSample, ReportFindings, draw_sample
from compressor.attack_report.curve import Curve, CurvePoint
from compressor.attack_report.gallery import Example, Prediction
from compressor.attack_report.norms import MinimalNorms
from compressor.attack_report.targeted import Targeted
from compressor.core.types import Norm, Threat
from compressor.evaluation.report import Alarm, Report

N = 60


class Linear:
    """A model ``W x + b`` on pictures whose pixels lie so far inside [0, 1] that no bound of the box is met."""

    def __init__(self, classes: int) -> None:
        generator = torch.Generator().manual_seed(classes)
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(48, classes))
        with torch.no_grad():
            self.model[1].weight.copy_(torch.randn(classes, 48, generator=generator))
            self.model[1].bias.copy_(-0.5 * self.model[1].weight.sum(1))  # mid-grey is on every boundary
        self.model.eval()
        self.images = torch.randint(96, 160, (N, 3, 4, 4), generator=generator, dtype=torch.uint8).numpy()
        x = torch.from_numpy(self.images.astype(np.float32) / np.float32(255))
        self.labels = self.model(x).argmax(1).numpy()
        self.labels[:5] = (self.labels[:5] + 1) % classes  # a few that it gets wrong unattacked
        self.classes = classes

    def subject(self, **options: Any) -> AttackedSample:
        return draw_sample(
            self.model, self.images, self.labels, classes=self.classes, **{"seed": 0, "samples": N, **options}
        )

    def distances(self, norm: Norm) -> NDArray[np.float64]:
        """To the nearest wrong class of each image, exactly: a margin over the dual norm of its gradient."""
        weight, bias = (p.detach().double().numpy() for p in self.model[1].parameters())
        logits = (self.images.astype(np.float32) / np.float32(255)).reshape(N, -1).astype(np.float64) @ weight.T + bias
        found = np.full(N, np.inf)
        for i, label in enumerate(self.labels):
            for other in set(range(self.classes)) - {int(label)}:
                gap = weight[other] - weight[label]
                dual = np.abs(gap).sum() if norm == "Linf" else np.sqrt((gap**2).sum())
                found[i] = min(found[i], max(0.0, (logits[i, label] - logits[i, other]) / dual))
        return found


@pytest.fixture(scope="module")
def two_classes() -> Linear:
    return Linear(2)


@pytest.fixture(scope="module")
def three_classes() -> Linear:
    return Linear(3)


def make_report(**changed: object) -> Report:
    """Six images of three classes; image 0 is wrong unattacked, A breaks 1 and 2, B breaks 2 and 3."""
    values: dict[str, object] = {
        "threat": Threat("Linf", "8/255"),
        "suite": "default@1",
        "seed": 0,
        "mode": "alone",
        "clean": np.array([0, 1, 1, 1, 1, 1], dtype=bool),
        "attacks": {"A": np.array([0, 0, 0, 1, 1, 1], dtype=bool), "B": np.array([0, 1, 0, 0, 1, 1], dtype=bool)},
        "labels": np.array([0, 0, 1, 1, 2, 2]),
        "predictions": {
            "clean": np.array([2, 0, 1, 1, 2, 2]),
            "A": np.array([2, 1, 0, 1, 2, 2]),
            "B": np.array([2, 0, 2, 2, 2, 2]),
        },
    }
    return Report(**{**values, **changed})  # type: ignore[arg-type]


def robust_so_far(n: int) -> tuple[bool, ...]:
    """The last n of the three images in the sample."""
    return tuple(i >= 3 - n for i in range(3))


def make_findings(classes: int = 3, shape: tuple[int, int, int] = (3, 4, 4), **changed: object) -> ReportFindings:
    """Findings of made-up numbers, for what is drawn and written from them."""
    alarm = Alarm("zero-gradients", "5 of 6 images have none", "What climbs gradients can't move.")
    noise = np.random.default_rng(0)
    natural = noise.uniform(0.2, 0.8, shape).astype(np.float32)
    example = Example(1, "A", 0, natural, natural + np.float32(8 / 255), Prediction(0, 0.9), Prediction(1, 0.6))
    points = tuple(CurvePoint(eps, robust_so_far(n)) for eps, n in (("0", 3), ("4/255", 2), ("8/255", 1)))
    attempts = np.ones((classes, classes), dtype=np.int64) - np.eye(classes, dtype=np.int64)
    values: dict[str, object] = {
        "about": AttackedModel(
            "model|1.onnx", "ab" * 32, "digits", "cd" * 32, tuple(f"class {k}" for k in range(classes)), shape
        ),
        "report": make_report(alarms=(alarm,)),
        "positions": (0, 2, 5),
        "labels": (0, 1, 2),
        "curves": (
            Curve("Linf", points),
            Curve("L2", (CurvePoint("0", robust_so_far(3)), CurvePoint("0.5", robust_so_far(1)))),
        ),
        "norms": (
            MinimalNorms("Linf", np.array([0.0, 0.02, np.inf])),
            MinimalNorms("L2", np.array([0.0, np.inf, np.inf])),
        ),
        "targeted": Targeted(attempts, attempts // 2),
        "examples": (example,),
        "drawn": 2,
    }
    return ReportFindings(**{**values, **changed})  # type: ignore[arg-type]
