from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from compressor.core.types import Threat
from compressor.evaluation.alarms.square_beats_white_box import CHECK
from compressor.evaluation.report import Report
from compressor.evaluation.suites import Suite, SuiteColumn
from tests.support.networks import Steps

N = 1000
THREAT = Threat("Linf", "0.1")
GRADIENT, QUERIES, ENSEMBLE = (
    SuiteColumn("PGD", "pgd-sat"),
    SuiteColumn("Square", "square"),
    SuiteColumn("AA", "autoattack"),
)
BOTH = Suite("both", 1, "", (GRADIENT, QUERIES))
STAGES = ("apgd-ce", "square")


def all_but(*broken: range) -> np.ndarray[Any, Any]:
    bits = np.ones(N, dtype=bool)
    for places in broken:
        bits[list(places)] = False
    return bits


def report(mode: Any = "alone", **columns: np.ndarray[Any, Any]) -> Report:
    return Report(THREAT, "t@1", 0, mode, all_but(), columns)


# Clopper and Pearson's lower 95 % bound passes half a per cent of 1,000 at 10 images.
@pytest.mark.parametrize(("broken", "rings"), [(0, False), (9, False), (10, True)])
def test_images_that_only_square_broke_are_counted(robust: nn.Module, examine: Any, broken: int, rings: bool) -> None:
    examined = examine(robust, suite=BOTH, report=report(PGD=all_but(range(100)), Square=all_but(range(broken, 100))))
    assert CHECK(examined) is None, "PGD broke them as well"
    examined = examine(
        robust, suite=BOTH, report=report(PGD=all_but(range(100)), Square=all_but(range(90, 100 + broken)))
    )
    expected = f"Square broke {broken} of {N} images that no attack with gradients broke"
    assert CHECK(examined) == (expected if rings else None)


def test_a_cascade_counts_only_what_came_after_every_gradient(robust: nn.Module, examine: Any) -> None:
    some, more = all_but(range(100)), all_but(range(120))
    after = examine(robust, suite=BOTH, report=report("cascade", PGD=some, Square=more))
    assert CHECK(after) == f"Square broke 20 of {N} images that no attack with gradients broke"
    turned = Suite("t", 1, "", (QUERIES, GRADIENT))
    assert CHECK(examine(robust, suite=turned, report=report("cascade", Square=some, PGD=more))) is None


@pytest.mark.parametrize(("by_square", "rings"), [(9, False), (10, True)])
def test_the_square_stage_of_an_ensemble_counts(robust: nn.Module, examine: Any, by_square: int, rings: bool) -> None:
    culprit = np.full(N, -1)
    culprit[:100], culprit[: by_square + 5] = 0, 1
    found = replace(report(PGD=all_but(range(5)), AA=all_but(range(100))), broken_by={"AA": (STAGES, culprit)})
    examined = examine(robust, suite=Suite("t", 1, "", (GRADIENT, ENSEMBLE)), report=found)
    assert (CHECK(examined) is not None) == rings


def test_a_short_square_rings_for_masked_models(robust: nn.Module, examine: Any, behind: Any) -> None:
    for masked in (behind(robust, torch.round), Steps(robust)):
        found = CHECK(examine(masked))
        assert found is not None
        assert found.startswith("100 queries of Square broke")


@pytest.mark.parametrize("columns", [(SuiteColumn("FGSM", "fgsm"),), (GRADIENT,)], ids=["FGSM", "PGD"])
@pytest.mark.parametrize("threat", [THREAT, Threat("L2", "0.5")], ids=str)
def test_healthy_models_stay_silent(healthy: dict[str, nn.Module], examine: Any, columns: Any, threat: Threat) -> None:
    suite = Suite("t", 1, "", columns)
    assert [CHECK(examine(model, suite=suite, threat=threat)) for model in healthy.values()] == [None] * 5


def test_there_must_be_something_to_beat(robust: nn.Module, examine: Any) -> None:
    for columns in ((), (QUERIES,)):
        bits = {column.name: all_but(range(500)) for column in columns}
        assert CHECK(examine(robust, suite=Suite("t", 1, "", columns), report=report(**bits))) is None
