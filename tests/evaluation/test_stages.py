"""An ensemble runs stage by stage, each on what stands; the reference is a plain run of the library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyautoattack import AutoAttack
from torch import nn

from compressor.attacks._search import misclassifies
from compressor.core.contracts import Ensemble
from compressor.core.types import Threat
from compressor.evaluation.evaluate import evaluate
from compressor.evaluation.report import Report
from compressor.evaluation.suites import Suite, SuiteColumn
from compressor.frozen import surrogate_of
from compressor.numerics.randomness import make_generator
from tests.support.networks import network_without_favourite

THREAT = Threat("Linf", "0.004")
BATCH = 8
SMALL = {"steps": 3, "targets": 2, "queries": 20}
ENSEMBLE = SuiteColumn("AA", "autoattack", SMALL)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return network_without_favourite(5)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (27, 3, 16, 16), dtype=np.uint8)


@pytest.fixture(scope="module")
def labels(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """The model's own answers, but for two images that it gets wrong."""
    with torch.no_grad():
        answers = model(torch.from_numpy(images).float() / 255).argmax(1).numpy()
    answers[:2] = (answers[:2] + 1) % 5
    return answers


def run(model: nn.Module, images: np.ndarray, labels: np.ndarray, *columns: SuiteColumn, **changes: Any) -> Report:
    arguments = {"seed": 3, "batch_size": BATCH, "soundness": False} | changes
    return evaluate(model, images, labels, THREAT, Suite("t", 1, "", columns), **arguments)


def test_stages_are_run_in_order_each_on_what_stands(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> None:
    calls: list[str] = []
    report = run(model, images, labels, ENSEMBLE, on_progress=lambda name, done, total: calls.append(name))
    attack = ENSEMBLE.build()
    assert isinstance(attack, Ensemble)
    x, y = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)
    stand_in = surrogate_of(model, x[:8])
    robust_so_far, broken_by, said = (
        ~misclassifies(model, x, y).numpy(),
        np.full(27, -1),
        report.predictions["clean"].copy(),
    )
    for number, (name, stage) in enumerate(attack.stages):
        index = np.flatnonzero(robust_so_far)
        for start in range(0, len(index), BATCH):
            part = index[start : start + BATCH]
            found = stage(stand_in, x[part], y[part], THREAT, make_generator(3, "attack", "AA", name, start))
            with torch.no_grad():
                said[part] = model(found.x_adv).argmax(1).numpy()
            misclassified = part[found.broken.numpy()]
            robust_so_far[misclassified], broken_by[misclassified] = False, number
    names, by = report.broken_by["AA"]
    assert names == ("apgd-ce", "apgd-t", "fab-t", "square")
    np.testing.assert_array_equal(by, broken_by)
    np.testing.assert_array_equal(report.attacks["AA"], robust_so_far)
    np.testing.assert_array_equal(report.predictions["AA"], said)
    assert len(set(by.tolist())) >= 3, "several stages broke something, and something stands"
    assert list(dict.fromkeys(calls)) == ["clean", *(f"AA: {name}" for name in names)]
    assert report.to_json()["broken_by"] == {
        "AA": {name: int((broken_by == number).sum()) for number, name in enumerate(names)}
    }


def test_in_a_cascade_an_ensemble_begins_where_the_others_ended(
    model: nn.Module, images: np.ndarray, labels: np.ndarray
) -> None:
    report = run(model, images, labels, SuiteColumn("FGSM", "fgsm"), ENSEMBLE, mode="cascade")
    _, by = report.broken_by["AA"]
    fell_before = ~report.attacks["FGSM"]
    assert (report.clean & fell_before).any()
    assert (by[fell_before] == -1).all()
    np.testing.assert_array_equal(report.attacks["AA"], report.attacks["FGSM"] & (by == -1))
    np.testing.assert_array_equal(report.predictions["AA"][fell_before], report.predictions["FGSM"][fell_before])
    assert sum(report.unique_successes.values()) == report.clean.sum() - report.robust.sum()


def test_the_reference_is_a_plain_run_of_the_library(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> None:
    column = SuiteColumn("AA", "autoattack-reference", {"attacks": ("apgd-ce", "square"), "steps": 3, "queries": 20})
    report = run(model, images, labels, column)
    plain = AutoAttack(
        model, attacks=["apgd-ce", "square"], eps=THREAT.radius, norm="Linf", seed=3, version="custom", device="cpu"
    )
    plain.apgd.n_iter, plain.square.n_queries, plain.verbose = 3, 20, False
    x, y = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)
    with torch.random.fork_rng():
        _, y_adv = plain.run_standard_evaluation(x, y, batch_size=BATCH)
    np.testing.assert_array_equal(report.attacks["AA"], (y_adv == y).numpy())
    broken = report.clean & ~report.attacks["AA"]
    assert 0 < broken.sum() < report.clean.sum()
    np.testing.assert_array_equal(report.predictions["AA"][broken], y_adv.numpy()[broken])


@pytest.fixture(scope="module")
def undisturbed(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> Report:
    return run(model, images, labels, ENSEMBLE)


@pytest.mark.parametrize("stop", [0, 5, 8, 14])
def test_stopped_in_any_stage_it_goes_on(
    stop: int, model: nn.Module, images: np.ndarray, labels: np.ndarray, undisturbed: Report, tmp_path: Path
) -> None:
    left = [stop]

    def stop_in_time(*_: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, images, labels, ENSEMBLE, state=tmp_path / "state", on_progress=stop_in_time)
    report = run(model, images, labels, ENSEMBLE, state=tmp_path / "state")
    assert report.to_json() == undisturbed.to_json()
    np.testing.assert_array_equal(report.broken_by["AA"][1], undisturbed.broken_by["AA"][1])
    np.testing.assert_array_equal(report.predictions["AA"], undisturbed.predictions["AA"])
