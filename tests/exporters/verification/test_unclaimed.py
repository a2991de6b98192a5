"""Files without a claim, from elsewhere: what is required takes its place. A linear model's robust images are known."""

from __future__ import annotations

import shlex
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import exporters
from compressor.core.contracts import Split
from compressor.core.errors import ClassMismatchError, UsageError
from compressor.core.types import DatasetSpec, Normalization, Threat
from compressor.data.datasets import draw
from exporters.artifact.sealing import ExportSettings, seal
from exporters.claim.claim import model_bytes
from exporters.reports.account import ReportSubject, account_of_verdict
from exporters.reports.attestation import attestation
from exporters.reports.junit import junit
from exporters.reports.markdown import markdown
from exporters.verification.request import Request
from exporters.verification.unclaimed import SAMPLES
from exporters.verification.verdict import Verdict

verify = partial(exporters.verify, isolate=False)

SIDE, CLASSES = 8, 4
THREAT = Threat("Linf", "0.06")
PATTERNS = np.random.default_rng(0).uniform(-1, 1, (CLASSES, 3, SIDE, SIDE))
WEIGHT = (PATTERNS - PATTERNS.mean(0)).reshape(CLASSES, -1).astype(np.float32)
BIAS = (-0.5 * WEIGHT.astype(np.float64).sum(1)).astype(np.float32)
NORMALIZATION = Normalization((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


class Patterns:
    """From faint to strong ones: no pixel is nearer to black or white than eps."""

    def __init__(self, classes: int = CLASSES) -> None:
        self.name, self.class_names, self.image_size = "patterns", tuple("abcdefg"[:classes]), SIDE
        self.digest_name = "patterns"
        rng = np.random.default_rng(1)
        labels = rng.integers(0, CLASSES, 600)
        x = 0.5 + rng.uniform(0, 0.3, (600, 1, 1, 1)) * PATTERNS[labels] + rng.uniform(-0.1, 0.1, (600, 3, SIDE, SIDE))
        self._split = Split(np.rint(255 * x).astype(np.uint8), labels.astype(np.int64))

    def has(self, split: str) -> bool:
        return split == "test"

    def load(self, split: str) -> Split:
        return self._split


def drawn(n: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The images that a verification draws, in float64, and their labels."""
    from compressor.data.datasets import split_digest

    data = Patterns()
    split = data.load("test")
    index = draw(split_digest(data, "test"), total=len(split), n=n)
    return split.images[index].reshape(n, -1) / 255, split.labels[index]


def counts(n: int = SAMPLES, radius: float = THREAT.radius) -> tuple[int, int]:
    """How many images a linear model gets right, and on how many no change within the radius can undo that."""
    x, y = drawn(n)
    weight, bias = WEIGHT.astype(np.float64), BIAS.astype(np.float64)
    scores = x @ weight.T + bias
    apart = np.abs(weight[y][:, None, :] - weight[None]).sum(2)  # how fast each other class can catch up
    leads = np.take_along_axis(scores, y[:, None], 1) - scores
    leads[np.arange(n), y] = np.inf
    reach = radius * apart
    reach[np.arange(n), y] = 0
    return int((leads > 0).all(1).sum()), int((leads > reach).all(1).sum())


def linear(
    *more: onnx.NodeProto, batch: int | str = "n", channels_last: bool = False, **constants: Any
) -> onnx.ModelProto:
    """The linear model, whose output ``scores`` further nodes make into ``out``."""
    nodes = [helper.make_node("Transpose", ["pixels"], ["x"], perm=[0, 3, 1, 2])] if channels_last else []
    nodes += [
        helper.make_node("Flatten", ["x" if channels_last else "pixels"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["scores"], transB=1),
        *(more or [helper.make_node("Identity", ["scores"], ["out"])]),
    ]
    image = [batch, SIDE, SIDE, 3] if channels_last else [batch, 3, SIDE, SIDE]
    weights = {"weight": WEIGHT, "bias": BIAS} | constants
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [batch, CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def check(model: onnx.ModelProto, folder: Path, *, least: float | None = 0.2, **options: Any) -> Verdict:
    path = folder / "other.onnx"
    path.write_bytes(model_bytes(model))
    options = {"data": Patterns(), "eps": THREAT.eps, "seed": 1, "threads": 1} | options
    return verify(path, min_robust_accuracy=least, **options)


def status(verdict: Verdict) -> dict[str, str]:
    return {check.name: check.status for check in verdict.checks}


def test_some_images_are_robust_and_some_are_not() -> None:
    right, robust = counts()
    assert SAMPLES > right > robust + 50
    assert robust > 80


@pytest.mark.parametrize(
    "form", [{}, {"channels_last": True}, {"batch": 1}, {"batch": 48, "channels_last": True}], ids=str
)
def test_the_robust_images_of_a_linear_model_are_counted(form: dict[str, Any], tmp_path: Path) -> None:
    verdict = check(linear(**form), tmp_path)
    right, robust = counts()
    assert (verdict.exit_code, verdict.answer, verdict.claim) == (0, "holds", None)
    assert verdict.clean == right
    assert 0 <= verdict.robust - robust <= 1, "an attack that finds the optimum but for one image"
    assert (verdict.samples, verdict.attacked, verdict.assurance) == (SAMPLES, right, "dataset-bound")
    assert [check.name for check in verdict.checks] == [
        *("structure", "data", "clean", "determinism", "gradients", "attacks", "alarms")
    ]


def test_a_normalisation_outside_the_file_leaves_eps_what_it_is(tmp_path: Path) -> None:
    mean, std = (np.repeat(np.float64(row), SIDE * SIDE) for row in (NORMALIZATION.mean, NORMALIZATION.std))
    inside = {"weight": (WEIGHT * std).astype(np.float32), "bias": (BIAS + WEIGHT @ mean).astype(np.float32)}
    verdict = check(linear(**inside), tmp_path, mean=NORMALIZATION.mean, std=NORMALIZATION.std)
    assert verdict.exit_code == 0
    right, robust = counts()
    assert verdict.clean == right
    assert 0 <= verdict.robust - robust <= 1


def test_a_softmax_at_the_end_is_recognised(tmp_path: Path) -> None:
    verdict = check(linear(helper.make_node("Softmax", ["scores"], ["out"])), tmp_path)
    assert verdict.exit_code == 0
    assert any("softmax" in check.detail for check in verdict.checks if check.name == "gradients")
    assert 0 <= verdict.robust - counts()[1] <= 1


def test_what_is_required_decides(tmp_path: Path) -> None:
    share = counts()[1] / SAMPLES
    for least, code, answer in ((share + 0.1, 1, "violated"), (share, 3, "undecided"), (share - 0.1, 0, "holds")):
        verdict = check(linear(), tmp_path, least=least)
        assert (verdict.exit_code, verdict.answer) == (code, answer), least
    verdict = check(linear(), tmp_path, least=share - 0.03, samples=SAMPLES)
    assert "more images needed: about" in verdict.policy[0].detail
    assert check(linear(), tmp_path, least=share - 0.1, samples=40).samples == 40


def test_a_weaker_norm_is_not_the_one_that_is_required(tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(model_bytes(linear()))
    policies = {"min_robust_accuracy": 0.2, "require_eps": "8/255"}
    for threat, code in ((THREAT, 0), (Threat("L2", "0.06"), 1), (Threat("Linf", "0.02"), 1)):
        verdict = verify(
            path, data=Patterns(), eps=threat.eps, norm=threat.norm, **policies, seed=1, threads=1, samples=64
        )
        assert verdict.exit_code == code, threat


def test_nothing_is_answered_before_enough_was_said(tmp_path: Path) -> None:
    verdict = check(linear(), tmp_path, eps=None)
    assert (verdict.exit_code, verdict.answer) == (3, "undecided")
    problem = verdict.first_problem
    assert problem is not None
    assert "--min-robust-accuracy" in problem.cause
    for wrong in ({"data": None}, {"least": None}, {"suite": "replay"}):
        with pytest.raises(UsageError):
            check(linear(), tmp_path, **wrong)
    with pytest.raises(ClassMismatchError):
        check(linear(), tmp_path, data=Patterns(classes=5))


def test_a_claim_says_under_which_threat_it_was_made(tmp_path: Path) -> None:
    sealed = seal(linear(), Patterns(), THREAT, ExportSettings(samples=32, threads=1))
    with pytest.raises(UsageError, match="makes a claim"):
        check(onnx.ModelProto.FromString(sealed.model), tmp_path)


def test_classes_in_another_order_are_told(tmp_path: Path) -> None:
    split = Patterns().load("test")
    verdict = check(linear(), tmp_path, data=(split.images, (split.labels + 1) % CLASSES), samples=64)
    assert (verdict.exit_code, verdict.answer) == (1, "violated")
    assert "no more than by guessing" in next(check.detail for check in verdict.checks if check.name == "clean")


def test_a_file_that_hides_its_gradients_is_not_decided(tmp_path: Path) -> None:
    one_hot = [
        helper.make_node("ReduceMax", ["scores"], ["top"], axes=[1], keepdims=1),
        helper.make_node("Equal", ["scores", "top"], ["is_top"]),
        helper.make_node("Cast", ["is_top"], ["out"], to=TensorProto.FLOAT),
    ]
    rounded = [
        helper.make_node("Div", ["scores", "coarse"], ["small"]),
        helper.make_node("Round", ["small"], ["out"]),
    ]
    for nodes, constants in ((one_hot, {}), (rounded, {"coarse": np.float32(5)})):
        verdict = check(linear(*nodes, **constants), tmp_path, least=0.1)
        assert verdict.exit_code == 3
        assert {status(verdict).get("alarms"), status(verdict).get("gradients"), status(verdict)["structure"]} & {
            "undecided"
        }


def test_black_box_attacks_are_enough_only_where_the_caller_says_so(tmp_path: Path) -> None:
    unknown = [helper.make_node("Hardmax", ["scores"], ["hard"]), helper.make_node("Add", ["scores", "hard"], ["out"])]
    verdict = check(linear(*unknown), tmp_path, least=0.1)
    assert (verdict.exit_code, status(verdict)["structure"]) == (3, "undecided")
    verdict = check(linear(*unknown), tmp_path, least=0.1, accept_black_box=True)
    assert (verdict.exit_code, status(verdict)["gradients"]) == (0, "skipped")


def test_the_command_repeats_the_run() -> None:
    request = Request(
        Path("other.onnx"),
        data=DatasetSpec("digits"),
        suite=None,
        latest=False,
        seed=7,
        samples=40,
        provider="cpu",
        threads=None,
        min_robust_accuracy=0.4,
        accept_black_box=False,
        eps=THREAT.eps,
        norm=THREAT.norm,
        mean=(0.1, 0.2, 0.3),
        std=(1.0, 1.0, 2.0),
        image_size=8,
    )
    words = shlex.split(request.command())
    assert words[:2] == ["compress", "verify"]
    assert "--eps 0.06 --norm Linf --mean 0.1,0.2,0.3 --std 1.0,1.0,2.0 --image-size 8" in " ".join(words)


def test_the_reports_say_what_was_measured_and_on_what(tmp_path: Path) -> None:
    verdict = check(linear(), tmp_path, samples=64)
    account = account_of_verdict(verdict, ReportSubject(tmp_path / "other.onnx", tmp_path / "none.npz", {}))
    assert "correct images" in markdown(account)
    assert "Linf" in markdown(account)
    assert "<testsuites" in junit(account)
    statement = attestation(account)
    assert statement is not None
    assert '"threat":"Linf 0.06"' in statement.replace(": ", ":")
    assert '"dataset":"patterns"' in statement.replace(": ", ":")
    fields = verdict.to_json()
    assert (fields["eps"], fields["norm"], fields["claim"]) == ("0.06", "Linf", None)


@pytest.mark.parametrize("opset", [13, 17, 20])
def test_the_older_exporter_of_torch(opset: int, tmp_path: Path) -> None:
    """With a batch of one baked in, and other names, as many tutorials write it."""
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential(network, nn.Linear(6, CLASSES), nn.Softmax(dim=1)).eval()
    path = tmp_path / "other.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.rand(1, 3, SIDE, SIDE),),
            str(path),
            dynamo=False,
            opset_version=opset,
            input_names=["data"],
            output_names=["prob"],
        )
    policies = {"min_robust_accuracy": 0.9}
    verdict = verify(path, data=Patterns(), eps=THREAT.eps, **policies, seed=1, threads=1, samples=16)
    assert verdict.exit_code in (1, 3)
    assert status(verdict)["gradients"] == "passed"
    assert verdict.policy[0].status == "unmet"
