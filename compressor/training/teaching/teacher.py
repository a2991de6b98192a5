"""The frozen teacher, and the look we take at it before any time is spent."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from compressor.evaluation.quick import QuickAccuracy
from compressor.frozen import chunk_of, in_chunks
from compressor.numerics.statistics import wilson_interval
from compressor.system.devices import full_float32

_MULTIPLE = 8


class FrozenTeacher(nn.Module):
    """A classifier in eval mode whose parameters take no gradients; gradients still flow through it to its input.

    Args:
        classifier: any module, best a ``FrozenTwin`` of the teacher.
    """

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> FrozenTeacher:
        """Stay in eval mode, whatever is asked of a module that contains it."""
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[B, K]`` of images ``[B, C, H, W]`` in [0, 1]."""
        if not torch.is_grad_enabled():
            return self._answers(x)
        with _own_precision(x):
            logits: Tensor = self.classifier(x)
        return logits

    @full_float32()
    def soft_labels(self, x: Tensor) -> Tensor:
        """Logits ``[B, K]`` without a graph, as float32, of images ``[B, C, H, W]`` in [0, 1].

        They are kept for other runs under the teacher's precision, so ``fp32`` must not mean TF32 on some machines.
        """
        return self._answers(x)

    @torch.no_grad()
    def _answers(self, x: Tensor) -> Tensor:
        """The same in the run's numerics; computed on as few images at once as is best."""
        with _own_precision(x):
            return in_chunks(self._labels_of, x, chunk_of(self.classifier))

    def _labels_of(self, x: Tensor) -> Tensor:
        # A CPU's library makes and keeps code for each new batch size: parts of batches are filled up to a few sizes.
        missing = -len(x) % _MULTIPLE if x.device.type == "cpu" else 0
        filled = torch.cat([x, x[-1:].expand(missing, -1, -1, -1)]) if missing and len(x) else x
        logits: Tensor = self.classifier(filled)
        return logits[: len(x)].float()


def _own_precision(x: Tensor) -> torch.autocast:
    """A teacher asked in the midst of an outer step stays in the precision that was chosen, and recorded, for it."""
    return torch.autocast(x.device.type, enabled=False)


def teacher_warnings(measurement: QuickAccuracy, classes: int) -> tuple[str, ...]:
    """What should worry the user: a teacher that knows little, resists little, or is too sure of itself to teach.

    Args:
        measurement: its clean and PGD accuracy and mean soft-label entropy on held-out images.
        classes: how many there are.

    A very confident robust teacher gives a worse student ("robust saturation", reported for RSLAD and later methods):
    its soft labels say hardly more than the label. One tenth of the largest possible entropy marks that here.
    """
    chance = 1 / classes
    largest = math.log(classes)
    warnings = []
    low, _ = wilson_interval(measurement.clean_correct, measurement.samples)
    if low <= 1.5 * chance:
        warnings.append(
            f"the teacher is near chance ({measurement.clean:.1%} clean on {measurement.samples} images): wrong data, "
            "wrong normalisation (--teacher-normalization) or wrong class order?"
        )
    elif measurement.robust < 0.5 * chance:
        warnings.append(
            f"the teacher is not robust ({measurement.robust:.1%} under PGD): its students will hardly be either."
        )
    if measurement.entropy < 0.1 * largest:
        warnings.append(
            f"the teacher is saturated (mean soft-label entropy {measurement.entropy:.2f} of at most {largest:.2f} "
            "nats): a less confident one often teaches robustness better."
        )
    return tuple(warnings)
