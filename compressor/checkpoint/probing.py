"""Settling by measurement what the keys of a checkpoint cannot show: its normalisation and its activation."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn

from compressor.checkpoint.fitting import fill_network
from compressor.checkpoint.loading import LoadedCheckpoint
from compressor.checkpoint.normalizations import normalization_name
from compressor.core.errors import AmbiguousCheckpointError
from compressor.core.types import ModelSpec
from compressor.models.classifier import Classifier
from compressor.numerics.augment import to_float_tensor
from compressor.numerics.statistics import binomial_tail
from compressor.system.devices import full_float32

# The best candidate must lead by this much, and by more than chance would give with probability 1 %.
_LEAD = 0.03
_SIGNIFICANCE = 0.01
# Logits closer than this say that two candidates are one function: nothing is left to choose.
_SAME_LOGITS = 1e-4


@dataclass(frozen=True)
class CandidateAccuracy:
    """How one candidate did: ``correct`` of the probe's ``samples`` images."""

    spec: ModelSpec
    correct: int
    samples: int

    @property
    def accuracy(self) -> float:
        """Clean accuracy on the probe's images, 0 to 1."""
        return self.correct / self.samples

    @property
    def description(self) -> str:
        """The candidate in words, such as ``normalization cifar10, activation silu``."""
        return f"normalization {normalization_name(self.spec.normalization)}, activation {self.spec.activation}"


@dataclass(frozen=True)
class ProbeResult:
    """The classifier that was chosen, and what all candidates measured, best first."""

    classifier: Classifier
    spec: ModelSpec
    measurements: tuple[CandidateAccuracy, ...]


@full_float32()
def probe(
    loaded: LoadedCheckpoint,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int = 128,
    device: torch.device | None = None,
) -> ProbeResult:
    """Choose among a checkpoint's candidates by their clean accuracy on the same images.

    The best must lead the next by 3 points, and significantly so by McNemar's exact test on the images where the two
    differ (one-sided, 1 %), unless both compute the same logits. It must also be better than guessing. A checkpoint
    without open questions has one candidate, for which only the latter is asked.

    Args:
        loaded: a checkpoint; its classifier is lent to the device, and is afterwards where and as it was.
        images: ``[N, 3, H, W]``, uint8 or float32 in [0, 1]; a few hundred.
        labels: int64 ``[N]``.
        batch_size: images at a time.
        device: where to compute; where the classifier is, unless given. It is waited for once a candidate.

    Raises:
        AmbiguousCheckpointError: two candidates are too close, or the best is near chance.
    """
    if len(images) == 0 or len(images) != len(labels):
        raise ValueError(f"{len(images)} images and {len(labels)} labels cannot be probed")
    candidates = loaded.open_questions or (loaded.spec,)
    labels = labels.cpu()
    scored = []
    for classifier in _classifiers(loaded, candidates):
        logits = _logits(classifier, images, device, batch_size)
        right = logits.argmax(1) == labels
        scored.append((CandidateAccuracy(classifier.spec, int(right.sum()), len(images)), classifier, right, logits))
    # The sort is stable: of equals, the likelier candidate comes first.
    scored.sort(key=lambda entry: -entry[0].correct)
    measurements = tuple(entry[0] for entry in scored)
    best, classifier, right, logits = scored[0]
    _refuse_chance(best, settled=len(candidates) == 1, measurements=measurements)
    for other, _, other_right, other_logits in scored[1:]:
        if not _same(logits, other_logits) and not _leads(right, other_right):
            raise AmbiguousCheckpointError(
                f"the checkpoint does equally well with {best.description} ({_percent(best)}) and with "
                f"{other.description} ({_percent(other)}) on {best.samples} images.",
                _way_out(measurements),
            )
    return ProbeResult(classifier, best.spec, measurements)


def _classifiers(loaded: LoadedCheckpoint, candidates: tuple[ModelSpec, ...]) -> list[Classifier]:
    """One classifier a candidate, all on the same weights: only what is around them differs."""
    state = loaded.classifier.network.state_dict()
    networks: dict[str, nn.Module] = {loaded.spec.activation: loaded.classifier.network}
    for spec in candidates:
        if spec.activation not in networks:
            networks[spec.activation] = fill_network(spec, state)
    device = next(loaded.classifier.parameters()).device
    return [Classifier(spec, networks[spec.activation]).to(device).eval() for spec in candidates]


@torch.no_grad()
def _logits(classifier: nn.Module, images: Tensor, device: torch.device | None, batch_size: int) -> Tensor:
    """Logits ``[N, K]``, on the CPU, computed on the device; the classifier comes back from there."""
    home = next(classifier.parameters()).device
    there = device or home
    batches = []
    try:
        classifier.to(there)
        for part in torch.split(images, batch_size):
            x = part.to(there)
            batches.append(classifier(to_float_tensor(x) if x.dtype == torch.uint8 else x.float()))
        return torch.cat(batches).cpu()
    finally:
        classifier.to(home)


def _refuse_chance(best: CandidateAccuracy, *, settled: bool, measurements: tuple[CandidateAccuracy, ...]) -> None:
    """Three standard errors above guessing, and a tenth of the way from guessing to perfect: less is no teacher."""
    chance = 1 / best.spec.classes
    threshold = chance + max(0.1 * (1 - chance), 3 * sqrt(chance * (1 - chance) / best.samples))
    if best.accuracy >= threshold:
        return
    tried = "" if settled else " under every normalisation and activation tried"
    raise AmbiguousCheckpointError(
        f"the checkpoint is right on at most {_percent(best)} of {best.samples} images{tried}: that is near guessing.",
        "Check that --data names the dataset it was trained on, in the same class order. "
        + ("" if settled else _way_out(measurements)),
    )


def _leads(right: Tensor, other: Tensor) -> bool:
    wins, losses = int((right & ~other).sum()), int((other & ~right).sum())
    by_chance = binomial_tail(wins, wins + losses, 0.5)
    return wins - losses >= _LEAD * len(right) and by_chance < _SIGNIFICANCE


def _same(logits: Tensor, other: Tensor) -> bool:
    scale = float(logits.abs().max().clamp_min(1.0))
    return float((logits - other).abs().max()) <= _SAME_LOGITS * scale


def _percent(measurement: CandidateAccuracy) -> str:
    return f"{100 * measurement.accuracy:.1f} %"


def _way_out(measurements: tuple[CandidateAccuracy, ...]) -> str:
    activations = {measurement.spec.activation for measurement in measurements}
    also = "; --activation relu or silu (--teacher-activation)" if len(activations) > 1 else ""
    names = "none, cifar10, cifar100 or half"
    return f"Say how it was trained: --normalization {names} (of a teacher: --teacher-normalization){also}."
