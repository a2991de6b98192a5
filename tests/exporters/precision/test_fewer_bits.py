"""float16 and INT8 files: sealed, verified by the rules of their own arithmetic, and made to lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import exporters
from compressor.core.contracts import Split
from compressor.core.types import Threat
from compressor.system.files import sha256_bytes
from exporters.artifact.sealing import ExportSettings, Provenance, Sealed, seal
from exporters.claim.claim import model_bytes, model_digest, with_claim
from exporters.claim.evidence import parse_evidence
from exporters.differentiable.arithmetic import arithmetic_of, output_step
from exporters.differentiable.graph import import_graph
from exporters.differentiable.logit_agreement import compare_predictions
from exporters.file_attacks.replay import find_nondeterministic
from exporters.file_attacks.target import open_file_target
from exporters.model_file.runtime import open_session
from exporters.precision.calibration import calibration_images, search_images
from exporters.precision.half import to_half
from exporters.precision.integer import Int8Settings, to_int8
from exporters.precision.measuring import robust_under_attack
from exporters.precision.search import fragile_operators, search_int8
from exporters.verification.verdict import Verdict
from exporters.writing.onnx import export_onnx
from tests.support.patterns import SIDE, draw_patterns, train_on_patterns

verify = partial(exporters.verify, isolate=False)

THREAT = Threat("Linf", "0.03")


class Blobs:
    """Three classes of patterns, from faint to strong."""

    name, class_names, image_size = "blobs", ("a", "b", "c"), SIDE

    splits: ClassVar = {"train": draw_patterns(1, 640), "test": draw_patterns(0, 300)}

    def has(self, split: str) -> bool:
        return split in self.splits

    def load(self, split: str) -> Split:
        return self.splits[split]


DATA = Blobs()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return train_on_patterns(DATA.load("train"), 120, THREAT, 0.02)


@pytest.fixture(scope="module")
def fp32(network: nn.Module) -> onnx.ModelProto:
    return export_onnx(network, SIDE)


@pytest.fixture(scope="module")
def calibration(network: nn.Module) -> np.ndarray:
    return calibration_images(network, DATA, THREAT, count=64)


@pytest.fixture(scope="module")
def int8(fp32: onnx.ModelProto, calibration: np.ndarray) -> onnx.ModelProto:
    return to_int8(fp32, calibration)


def natural(count: int = 128) -> tuple[np.ndarray, np.ndarray]:
    split = DATA.load("test")
    return split.images[:count].astype(np.float32) / np.float32(255), split.labels[:count]


def seal_as(model: onnx.ModelProto, name: str) -> Sealed:
    return seal(
        model, DATA, THREAT, ExportSettings(samples=128, threads=1), provenance=Provenance(precision={"name": name})
    )


@pytest.fixture(scope="module")
def sealed_int8(int8: onnx.ModelProto) -> Sealed:
    return seal_as(int8, "int8")


def check(sealed: Sealed, folder: Path, seed: int = 7) -> Verdict:
    path = folder / "model.onnx"
    sealed.write(path)
    return verify(path, seed=seed, threads=1)


def told(verdict: Verdict) -> dict[str, str]:
    return {check.name: check.status for check in verdict.checks}


def without(verdict: Verdict) -> dict[str, str]:
    """The checks that did not pass."""
    return {name: status for name, status in told(verdict).items() if status not in ("passed", "skipped")}


def inflated(sealed: Sealed, model: onnx.ModelProto) -> Sealed:
    """A consistent pair that calls every image robust that is classified correctly: what a blind attack would say."""
    evidence = parse_evidence(sealed.evidence)
    none = np.zeros(0, dtype=np.int64)
    evidence = replace(
        evidence,
        robust=evidence.clean,
        adversarial_u8=evidence.adversarial_u8[:0],
        adversarial_u8_index=none,
        adversarial_f32=evidence.adversarial_f32[:0],
        adversarial_f32_index=none,
    )
    data = evidence.to_bytes()
    claim = replace(
        sealed.claim,
        robust=int(evidence.clean.sum()),
        alarms=(),
        evidence=sha256_bytes(data),
        model=model_digest(model),
    ).sealed()
    return replace(sealed, claim=claim, model=model_bytes(with_claim(model, claim)), evidence=data)


# What a file's arithmetic is.


def test_the_arithmetic_is_read_from_the_graph(
    fp32: onnx.ModelProto, int8: onnx.ModelProto, calibration: np.ndarray
) -> None:
    half = to_half(fp32, calibration).model
    assert [arithmetic_of(model) for model in (fp32, half, int8)] == ["fp32", "fp16", "int8"]
    assert import_graph(int8).arithmetic == "int8"


def rounded_logits(model: onnx.ModelProto, step: float) -> onnx.ModelProto:
    """The same file with its logits rounded to multiples of ``step``, as other quantisers leave them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for node in graph.node:
        node.output[:] = ["exact" if name == "logits" else name for name in node.output]
    graph.initializer.extend(
        [numpy_helper.from_array(np.float32(step), "step"), numpy_helper.from_array(np.uint8(128), "zero")]
    )
    graph.node.extend(
        [
            helper.make_node("QuantizeLinear", ["exact", "step", "zero"], ["levels"]),
            helper.make_node("DequantizeLinear", ["levels", "step", "zero"], ["logits"]),
        ]
    )
    return copy


def test_the_step_of_the_logits_is_read_from_the_graph_too(int8: onnx.ModelProto) -> None:
    assert output_step(int8) == 0
    assert output_step(rounded_logits(int8, 0.125)) == 0.125


def test_our_int8_files_do_not_round_their_logits(int8: onnx.ModelProto) -> None:
    assert not {node.op_type for node in int8.graph.node if "logits" in node.output} & {"DequantizeLinear"}
    logits = open_session(model_bytes(int8), threads=1)(natural()[0])
    assert len(np.unique(logits)) > 256


# The gate.


def test_ties_count_as_agreement_and_nothing_else_does() -> None:
    reference = np.array([[1.0, 0.0]] * 99 + [[0.501, 0.5]], dtype=np.float32)
    other = reference.copy()
    other[99] = [0.5, 0.501]
    assert compare_predictions(reference, other).argmax_agreement == 1
    other[0] = [0.0, 1.0]
    assert compare_predictions(reference, other).passed  # 99 of 100
    other[1] = [0.0, 1.0]
    assert not compare_predictions(reference, other).passed


def test_the_same_classes_by_other_logits_do_not_pass() -> None:
    # As of a file with a quantiser that quantises nothing, whose importer is deceived otherwise.
    reference = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    assert not compare_predictions(reference, 1.2 * reference).passed
    other = reference.copy()
    other[:99] *= 1.2
    assert compare_predictions(reference, other).passed  # less than half of them
    assert compare_predictions(reference, reference + np.float32(0.02)).passed


def test_logits_that_are_no_numbers_never_pass() -> None:
    bad = np.array([[np.nan, 0.0]], dtype=np.float32)
    assert not compare_predictions(bad, bad).passed


# Honest files.


def test_an_honest_int8_file_holds(sealed_int8: Sealed, tmp_path: Path) -> None:
    verdict = check(sealed_int8, tmp_path)
    assert verdict.exit_code == 0, without(verdict)
    assert 10 < sealed_int8.claim.robust < sealed_int8.claim.clean_correct - 10
    assert {"PGD-margin unrounded", "PGD-CE T=0.02", "PGD-margin through Clip"} <= set(verdict.attacks)
    assert sealed_int8.claim.precision == {"name": "int8"}


def test_an_honest_float16_file_holds(fp32: onnx.ModelProto, calibration: np.ndarray, tmp_path: Path) -> None:
    verdict = check(seal_as(to_half(fp32, calibration).model, "fp16"), tmp_path)
    assert verdict.exit_code == 0, without(verdict)


def test_logits_of_eight_bits_tie_and_still_hold(int8: onnx.ModelProto, tmp_path: Path) -> None:
    logits = open_session(model_bytes(int8), threads=1)(natural()[0])
    step = 1.1 * float(np.abs(logits).max()) / 127
    verdict = check(seal_as(rounded_logits(int8, step), "int8"), tmp_path)
    assert verdict.exit_code == 0, without(verdict)


def test_one_seed_gives_one_outcome(sealed_int8: Sealed, int8: onnx.ModelProto) -> None:
    again = seal_as(int8, "int8")
    assert (again.model, again.evidence) == (sealed_int8.model, sealed_int8.evidence)


def test_another_machine_may_be_a_quantum_off(sealed_int8: Sealed, int8: onnx.ModelProto) -> None:
    x, _ = natural()
    target = open_file_target(open_session(model_bytes(int8), threads=1), x, int8)
    scale = float(np.median(np.ptp(target.session(x), axis=1)))
    assert target.slack == pytest.approx(scale / 128)
    assert target.tolerance < target.slack / 10
    assert find_nondeterministic(x, target, seed=0) == ()


# Liars.


def test_a_claim_inflated_on_an_int8_file_is_refuted(
    sealed_int8: Sealed, int8: onnx.ModelProto, tmp_path: Path
) -> None:
    verdict = check(inflated(sealed_int8, int8), tmp_path)
    assert verdict.exit_code == 1
    assert without(verdict) == {"decision": "failed"}


def coarse(model: onnx.ModelProto, step: float) -> onnx.ModelProto:
    """The input rounded to few levels: the true gradient of the file is zero everywhere."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        node.input[:] = ["rounded" if name == "input" else name for name in node.input]
    copy.graph.initializer.extend(
        [numpy_helper.from_array(np.float32(step), "input_step"), numpy_helper.from_array(np.uint8(0), "input_zero")]
    )
    pair = [
        helper.make_node("QuantizeLinear", ["input", "input_step", "input_zero"], ["levels"], name="q"),
        helper.make_node("DequantizeLinear", ["levels", "input_step", "input_zero"], ["rounded"], name="dq"),
    ]
    nodes = [*pair, *(onnx.NodeProto.FromString(node.SerializeToString()) for node in copy.graph.node)]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def loud(model: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """Logits so large that the softmax saturates, and cross-entropy with it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        node.output[:] = ["quiet" if name == "logits" else name for name in node.output]
    copy.graph.initializer.append(numpy_helper.from_array(np.float32(factor), "factor"))
    copy.graph.node.append(helper.make_node("Mul", ["quiet", "factor"], ["logits"], name="loud"))
    return copy


@pytest.mark.parametrize(
    "mask", [lambda model: coarse(model, 0.1), lambda model: loud(model, 1e4)], ids=["coarse input", "loud logits"]
)
def test_an_int8_file_that_masks_its_gradients_is_refuted(
    mask: Callable[[onnx.ModelProto], onnx.ModelProto], int8: onnx.ModelProto, tmp_path: Path
) -> None:
    masked = mask(int8)
    verdict = check(inflated(seal_as(masked, "int8"), masked), tmp_path)
    assert verdict.exit_code == 1, told(verdict)
    assert told(verdict)["decision"] == "failed"


def test_coarse_logits_are_no_format_but_a_mask(int8: onnx.ModelProto, tmp_path: Path) -> None:
    x, _ = natural()
    scale = float(np.median(np.ptp(open_session(model_bytes(int8), threads=1)(x), axis=1)))
    verdict = check(seal_as(rounded_logits(int8, scale / 4), "int8"), tmp_path)
    assert verdict.exit_code == 3
    assert any("tie" in alarm for alarm in verdict.alarms)


# The search.


def test_the_search_images_were_not_calibrated_on(network: nn.Module) -> None:
    calibrated = calibration_images(network, DATA, THREAT, count=64)[:64]
    searched, labels = search_images(DATA, count=100, skip=64)
    assert len(labels) == 100
    assert {image.tobytes() for image in calibrated}.isdisjoint(image.tobytes() for image in searched)
    assert len(search_images(DATA, count=100, skip=640)[1]) == 0


def test_without_a_loss_only_the_defaults_are_tried(fp32: onnx.ModelProto, calibration: np.ndarray) -> None:
    images, labels = search_images(DATA, count=64, skip=64)
    search = search_int8(
        fp32, calibration, lambda model: robust_under_attack(model, images, labels, THREAT, seed=0, threads=1)
    )
    assert [candidate.settings for candidate in search.candidates] == [Int8Settings()]
    assert search.best is search.candidates[0]
    assert 5 < int(search.fp32.sum()) < 60
    assert search.loss(search.best) <= 0.005


def test_a_loss_is_searched_for_what_helps(fp32: onnx.ModelProto, calibration: np.ndarray) -> None:
    def measure(model: onnx.ModelProto) -> np.ndarray:
        """As if only a first layer in fp32 helped, and entropy a little."""
        if arithmetic_of(model) == "fp32":
            return np.arange(100) < 50
        read = {name: node for node in model.graph.node for name in node.input}
        spared = read["input"].op_type == "Conv"
        return np.arange(100) < 40 + 5 * spared

    search = search_int8(fp32, calibration, measure)
    assert len(search.candidates) > 4
    assert search.best.settings.left_out
    assert search.loss(search.best) == pytest.approx(0.05)
    assert sum(entry["taken"] for entry in search.to_json()) == 1
    assert arithmetic_of(search.best.model) == "int8"


def test_outliers_make_an_operator_fragile() -> None:
    """The second of two convolutions reads what has one value in a thousand far away."""
    spike = np.zeros((1, 1, SIDE, SIDE), dtype=np.float32)
    spike[0, 0, 0, 0] = 100
    weight = np.ones((1, 1, 1, 1), dtype=np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["a"], name="first"),
        helper.make_node("Add", ["a", "spike"], ["b"], name="add"),
        helper.make_node("Conv", ["b", "w"], ["c"], name="second"),
        helper.make_node("ReduceMean", ["c"], ["logits"], axes=[2, 3], keepdims=0, name="mean"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])],
        [numpy_helper.from_array(spike, "spike"), numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    images = np.random.default_rng(0).random((10, 1, SIDE, SIDE), np.float32)
    assert fragile_operators(model, images) == ("second",)


@pytest.mark.parametrize(
    "settings", [Int8Settings("percentile"), Int8Settings("entropy"), Int8Settings(reduce_range=True)]
)
def test_every_setting_makes_another_file_that_works(
    settings: Int8Settings,
    fp32: onnx.ModelProto,
    int8: onnx.ModelProto,
    calibration: np.ndarray,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = to_int8(fp32, calibration, settings)
    if settings.calibration != "entropy":  # which may find that the whole range loses least
        assert model_bytes(model) != model_bytes(int8)
    assert capsys.readouterr().out == ""
    x, y = natural()
    correct = (open_session(model_bytes(model), threads=1)(x).argmax(1) == y).mean()
    assert correct > 0.9 * (open_session(model_bytes(fp32), threads=1)(x).argmax(1) == y).mean()


def test_operators_that_are_left_out_keep_their_weights(fp32: onnx.ModelProto, calibration: np.ndarray) -> None:
    (first, *_) = [node for node in fp32.graph.node if node.op_type == "Conv"]
    model = to_int8(fp32, calibration, Int8Settings(left_out=(first.name,)))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    (same,) = [node for node in model.graph.node if node.name == first.name]
    original = next(tensor for tensor in fp32.graph.initializer if tensor.name == first.input[1])
    assert weights[same.input[1]].raw_data == original.raw_data
