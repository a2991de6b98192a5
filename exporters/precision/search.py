"""Looks for INT8 settings under which attacks find no more than in the fp32 file: robust accuracy is the measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import torch

from exporters.claim.evidence import Bits
from exporters.model_file.runtime import Images
from exporters.precision.calibration import observe_values
from exporters.precision.integer import Int8Settings, to_int8

ALLOWED_LOSS = 0.005
"""The part of the images that INT8 may lose of attacked accuracy before other settings are tried: half a point."""

_FRAGILE = 0.1  # of the operators, those whose values suit eight bits least
_WITH_WEIGHTS = frozenset({"Conv", "Gemm", "MatMul"})

Measure = Callable[[onnx.ModelProto], Bits]
"""Which of a fixed list of images a model still gets right under attack, bool ``[n]``."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One setting that was tried.

    Attributes:
        settings: it.
        robust: bool ``[n]``: the images that are robust.
        model: the file.
    """

    settings: Int8Settings
    robust: Bits
    model: onnx.ModelProto


@dataclass(frozen=True, eq=False)
class Int8Search:
    """What was tried, in that order, and what was taken.

    Attributes:
        fp32: bool ``[n]``: the images that are robust in fp32.
        candidates: at least one, the defaults first.
        best: the candidate with the most robust images; of equals the one that was tried first.
    """

    fp32: Bits
    candidates: tuple[Candidate, ...]
    best: Candidate

    def loss(self, candidate: Candidate) -> float:
        """The part of the images that are robust in fp32 and not here, less those robust only here; may be < 0."""
        return (int(self.fp32.sum()) - int(candidate.robust.sum())) / max(1, len(self.fp32))

    def to_json(self) -> list[dict[str, Any]]:
        """One entry a candidate, the taken one marked."""
        return [
            {
                **candidate.settings.to_json(),
                "robust": int(candidate.robust.sum()),
                "of": len(candidate.robust),
                "taken": candidate is self.best,
            }
            for candidate in self.candidates
        ]


def search_int8(model: onnx.ModelProto, calibration: Images, measure: Measure) -> Int8Search:
    """Quantise with the defaults; where that loses more than half a point under attack, try other settings too.

    Tried are: ranges by percentile and by entropy, seven-bit weights, and leaving operators in float32, the first and
    last ones or those whose values suit eight bits least. Then the best of them with the best operators left out.

    Args:
        model: the fp32 export.
        calibration: float32 ``[n, C, H, W]``, see :func:`exporters.precision.calibration_images`.
        measure: attacks a model on images that are neither calibrated on nor evidence: settings chosen on the evidence
            would be an exam taken with the answers at hand.

    Raises:
        ExportError: the model cannot be quantised.
    """
    fp32 = measure(model)

    def trial(settings: Int8Settings) -> Candidate:
        made = to_int8(model, calibration, settings)
        return Candidate(settings, measure(made), made)

    tried = [trial(Int8Settings())]
    if int(fp32.sum()) - int(tried[0].robust.sum()) > ALLOWED_LOSS * len(fp32):
        tried += [trial(settings) for settings in _alternatives(model, calibration)]
        both = _combined(tried)
        if both is not None:
            tried.append(trial(both))
    # max keeps the first of equals, which is the simpler one.
    return Int8Search(fp32, tuple(tried), max(tried, key=lambda candidate: int(candidate.robust.sum())))


def _alternatives(model: onnx.ModelProto, calibration: Images) -> Iterator[Int8Settings]:
    yield Int8Settings("percentile")
    yield Int8Settings("entropy")
    yield Int8Settings(reduce_range=True)
    ends = _ends(model)
    yield Int8Settings(left_out=ends)
    fragile = fragile_operators(model, calibration)
    if set(fragile) - set(ends):
        yield Int8Settings(left_out=fragile)


def _combined(tried: list[Candidate]) -> Int8Settings | None:
    """The best ranges with the best operators left out, if both helped and were not yet tried together."""
    usual = int(tried[0].robust.sum())
    helped = [candidate for candidate in tried[1:] if int(candidate.robust.sum()) > usual]
    ranges = [candidate for candidate in helped if not candidate.settings.left_out]
    spared = [candidate for candidate in helped if candidate.settings.left_out]
    if not ranges or not spared:
        return None
    first, second = (max(group, key=lambda candidate: int(candidate.robust.sum())) for group in (ranges, spared))
    return replace(first.settings, left_out=second.settings.left_out)


def _ends(model: onnx.ModelProto) -> tuple[str, ...]:
    """The first and the last operator with weights."""
    names = [node.name for node in model.graph.node if node.op_type in _WITH_WEIGHTS]
    return tuple(dict.fromkeys([*names[:1], *names[-1:]]))


def fragile_operators(model: onnx.ModelProto, images: Images) -> tuple[str, ...]:
    """The operators with weights whose input has the widest range for its spread: few of 256 levels are used there.

    ``(max - min) / std`` of each value over all images; the tenth of the operators with the largest, at least one.

    Args:
        model: the fp32 export, all of whose operators have names.
        images: float32 ``[n, C, H, W]``, n at least 1.
    """
    seen: dict[str, _Spread] = {}

    def observe(name: str, value: torch.Tensor) -> None:
        if value.is_floating_point():
            seen.setdefault(name, _Spread()).add(value.double())

    observe_values(model, images, observe)
    nodes = [node for node in model.graph.node if node.op_type in _WITH_WEIGHTS and node.input[0] in seen]
    nodes.sort(key=lambda node: -seen[node.input[0]].range_in_deviations())
    return tuple(node.name for node in nodes[: max(1, round(_FRAGILE * len(nodes)))])


@dataclass
class _Spread:
    low: float = np.inf
    high: float = -np.inf
    count: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, value: torch.Tensor) -> None:
        self.low, self.high = min(self.low, float(value.min())), max(self.high, float(value.max()))
        self.count += value.numel()
        self.total += float(value.sum())
        self.squares += float(value.square().sum())

    def range_in_deviations(self) -> float:
        variance = self.squares / self.count - (self.total / self.count) ** 2
        return (self.high - self.low) / math.sqrt(max(variance, 1e-30))
