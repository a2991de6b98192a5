"""Sealing a linear model, whose robust images are known exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.core.contracts import Split
from compressor.core.errors import ClassMismatchError, ExportError, UnreadableDataError, UsageError
from compressor.core.types import Threat
from compressor.numerics.ball import inside_ball
from compressor.system.files import sha256_bytes
from exporters.artifact.sealing import ExportSettings, Provenance, Sealed, seal
from exporters.claim.claim import read_claim
from exporters.claim.evidence import evidence_path, parse_evidence, to_float_array
from exporters.model_file.runtime import open_session
from exporters.verification.verifier_data import draw_images
from tests.support.patterns import TestImages

SIDE = 6
THREAT = Threat("Linf", "0.03")
RNG = np.random.default_rng(0)
MEANS = RNG.uniform(0.3, 0.7, (3, 3 * SIDE * SIDE))
WEIGHTS = (20 * (MEANS - MEANS.mean(0))).astype(np.float32)
BIAS = (-10 * (MEANS**2).sum(1)).astype(np.float32)


class Blobs(TestImages):
    """Three classes of pictures, from grey to unmistakable, none of them near black or white."""

    def __init__(self, total: int = 300) -> None:
        rng = np.random.default_rng(1)
        labels = rng.integers(0, 3, total)
        strength = rng.uniform(0, 1, (total, 1))
        x = MEANS.mean(0) + strength * (MEANS - MEANS.mean(0))[labels] + rng.normal(0, 0.02, (total, 3 * SIDE * SIDE))
        pixels = np.rint(255 * x.clip(0.1, 0.9)).astype(np.uint8).reshape(-1, 3, SIDE, SIDE)
        super().__init__("blobs", Split(pixels, labels.astype(np.int64)))


def make_model(output: str = "logits", *extra: onnx.NodeProto) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "W", "b"], ["logits"], transB=1),
        *extra,
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(WEIGHTS, "W"), numpy_helper.from_array(BIAS, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def worst_leads(images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], eps: float) -> np.ndarray[Any, Any]:
    """In float64: ``min_j (w_y - w_j) x + b_y - b_j - eps ||w_y - w_j||_1``, exact while no pixel leaves [0, 1]."""
    w, b = WEIGHTS.astype(np.float64), BIAS.astype(np.float64)
    z = images.reshape(len(images), -1) @ w.T + b
    rows = np.arange(len(labels))
    fall = eps * np.abs(w[labels][:, None] - w[None]).sum(2)
    leads = z[rows, labels][:, None] - z - fall
    leads[rows, labels] = np.inf
    return leads.min(1)


@pytest.fixture(scope="module")
def sealed() -> Sealed:
    return seal(make_model(), Blobs(), THREAT, ExportSettings(samples=128, threads=1))


def test_robust_images_are_those_that_no_attack_can_break(sealed: Sealed) -> None:
    evidence = parse_evidence(sealed.evidence)
    images = to_float_array(evidence.images).astype(np.float64)
    clean, worst = worst_leads(images, evidence.labels, 0.0), worst_leads(images, evidence.labels, THREAT.radius)
    assert 30 < sealed.claim.robust < 98  # neither all nor nothing, or this shows nothing
    np.testing.assert_array_equal(evidence.clean, clean > 0)
    decided = np.abs(worst) > 1e-2
    np.testing.assert_array_equal(evidence.robust[decided], worst[decided] > 0)


def test_every_image_that_fell_comes_with_proof(sealed: Sealed) -> None:
    evidence = parse_evidence(sealed.evidence)
    x_adv, index = evidence.adversarial()
    natural = evidence.natural()[index]
    assert len(index) == sealed.claim.clean_correct - sealed.claim.robust > 0
    assert inside_ball(x_adv, natural, THREAT).all()
    assert (open_session(sealed.model, threads=1)(x_adv).argmax(1) != evidence.labels[index]).all()
    assert len(evidence.adversarial_u8) > len(evidence.adversarial_f32)


def test_the_claim_says_what_the_files_are(sealed: Sealed) -> None:
    claim = read_claim(onnx.ModelProto.FromString(sealed.model))
    assert claim == sealed.claim
    assert claim is not None
    assert claim.evidence == sha256_bytes(sealed.evidence)
    assert (claim.samples, claim.class_names, claim.threat) == (128, ("a", "b", "c"), THREAT)
    text = claim.to_text()
    assert str(Path.home()) not in text
    assert str(Path.cwd()) not in text


def test_equal_work_gives_equal_bytes(sealed: Sealed) -> None:
    again = seal(make_model(), Blobs(), THREAT, ExportSettings(samples=128, threads=1))
    assert (again.model, again.evidence) == (sealed.model, sealed.evidence)
    other = seal(make_model(), Blobs(), THREAT, ExportSettings(samples=128, threads=1, seed=1))
    assert other.claim.seeds != sealed.claim.seeds


def test_images_are_the_draw_of_the_dataset(sealed: Sealed) -> None:
    evidence, drawn = parse_evidence(sealed.evidence), draw_images(Blobs(), 128)
    np.testing.assert_array_equal(evidence.images, drawn.images)
    assert sealed.claim.dataset["digest"] == drawn.digest


def test_l2_claims_hold_the_ball_too() -> None:
    threat = Threat("L2", "0.3")
    sealed = seal(make_model(), Blobs(), threat, ExportSettings(samples=64, threads=1))
    evidence = parse_evidence(sealed.evidence)
    x_adv, index = evidence.adversarial()
    assert len(index) > 5
    assert inside_ball(x_adv, evidence.natural()[index], threat).all()


def test_a_stronger_suite_runs_after_the_verifiers_own() -> None:
    sealed = seal(make_model(), Blobs(), THREAT, ExportSettings(samples=32, threads=1, suite="quick"))
    assert sealed.claim.suite == "verify@1+quick@1"
    assert list(sealed.attacks)[-3:] == ["Square", "quick@1 FGSM", "quick@1 PGD-10"]


def test_provenance_goes_into_the_claim() -> None:
    provenance = Provenance(recipe={"epochs": 3}, teacher="a" * 64, student="b" * 64, licences={"data": "MIT"})
    claim = seal(make_model(), Blobs(), THREAT, ExportSettings(samples=8, threads=1), provenance=provenance).claim
    assert (claim.recipe, claim.teacher, claim.student) == ({"epochs": 3}, "a" * 64, "b" * 64)
    assert claim.licences == {"data": "MIT"}


def test_an_honest_model_has_nothing_to_confess(sealed: Sealed) -> None:
    assert sealed.claim.alarms == ()
    assert sealed.alarms == ()


def test_a_model_that_blinds_the_attacks_confesses_it() -> None:
    # Saturated outputs, shifted so that of most pictures one class alone is on the upper side.
    images = to_float_array(Blobs().load("test").images).reshape(300, -1)
    second, first = np.sort(images @ WEIGHTS.T + BIAS, axis=1)[:, 1:].T
    model = make_model("out", helper.make_node("Sigmoid", ["logits"], ["out"]))
    for tensor, values in zip(model.graph.initializer, (WEIGHTS, BIAS - np.median((first + second) / 2)), strict=True):
        tensor.CopyFrom(numpy_helper.from_array((1e4 * values).astype(np.float32), tensor.name))
    sealed = seal(model, Blobs(), THREAT, ExportSettings(samples=64, threads=1))
    assert sealed.claim.robust > 10, "a proud claim, were it not for the alarms"
    claim = read_claim(onnx.ModelProto.FromString(sealed.model))
    assert claim is not None
    assert {"half-range", "zero-gradients"} <= set(claim.alarms)
    assert claim.alarms == tuple(sorted({alarm.name for alarm in sealed.alarms}))
    assert all(alarm.detail for alarm in sealed.alarms)


def test_both_files_are_written(sealed: Sealed, tmp_path: Path) -> None:
    path = tmp_path / "run" / "model.onnx"
    assert sealed.write(path) == evidence_path(path)
    assert path.read_bytes() == sealed.model
    assert evidence_path(path).read_bytes() == sealed.evidence
    assert len(list(path.parent.iterdir())) == 2


def test_fewer_images_than_asked_for_is_all_of_them() -> None:
    assert seal(make_model(), Blobs(20), THREAT, ExportSettings(samples=128, threads=1)).claim.samples == 20


def test_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="0 images"):
        seal(make_model(), Blobs(), THREAT, ExportSettings(samples=0))
    with pytest.raises(UsageError, match="10001 images"):
        seal(make_model(), Blobs(), THREAT, ExportSettings(samples=10_001))
    with pytest.raises(UnreadableDataError, match="no test images"):
        seal(make_model(), Blobs(0), THREAT, ExportSettings(threads=1))
    two = Blobs()
    two.class_names = ("a", "b")
    with pytest.raises(ClassMismatchError, match="3 classes"):
        seal(make_model(), two, THREAT, ExportSettings(threads=1))


def test_a_file_without_gradients_is_not_sealed() -> None:
    model = make_model("out", helper.make_node("Sinh", ["logits"], ["out"]))
    with pytest.raises(ExportError, match="Sinh"):
        seal(model, Blobs(), THREAT, ExportSettings(samples=8, threads=1))
