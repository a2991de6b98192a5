"""Hand-made files whose claims are false, each with every digest right and one way to blind an attack."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import exporters
from compressor.system.files import sha256_bytes
from exporters.claim.claim import Claim, model_bytes, model_digest, with_claim
from exporters.claim.evidence import Evidence, evidence_path, to_float_array
from exporters.differentiable.graph import GraphModule
from exporters.verification import opening
from exporters.verification.verdict import Verdict

verify = partial(exporters.verify, isolate=False)

SIDE = 12
PIXELS = SIDE * SIDE
CLASSES = 3
EPS = "0.0334"  # off the 1/255 grid, as a ball's corners then are
RNG = np.random.default_rng(0)
WEIGHTS = RNG.standard_normal((PIXELS, CLASSES)).astype(np.float32)
WEIGHTS -= WEIGHTS.mean(0)

node = helper.make_node


def absolute(name: str, result: str) -> list[onnx.NodeProto]:
    """``|v|`` in operators that the importer knows."""
    return [
        node("Relu", [name], [f"{name} up"]),
        node("Mul", [name, "minus"], [f"{name} turned"]),
        node("Relu", [f"{name} turned"], [f"{name} down"]),
        node("Add", [f"{name} up", f"{name} down"], [result]),
    ]


LINEAR = [
    node("Reshape", ["x", "shape"], ["pixels"]),
    node("Sub", ["pixels", "half"], ["centred"]),
    node("MatMul", ["centred", "weights"], ["z"]),
]
# ``on`` is 1 where every pixel is a whole number of 255ths, and 0 where they are far from it on average.
ON_GRID = [
    node("Mul", ["pixels", "255"], ["levels"]),
    node("Round", ["levels"], ["whole"]),
    node("Sub", ["levels", "whole"], ["rest"]),
    *absolute("rest", "distance"),
    node("ReduceMean", ["distance", "first"], ["far"]),
    node("Mul", ["far", "steep"], ["fall"]),
    node("Sub", ["one", "fall"], ["rise"]),
    node("Relu", ["rise"], ["on"]),
]
CONSTANTS: dict[str, Any] = {
    "shape": np.array([-1, PIXELS]),
    "half": np.float32(0.5),
    "weights": WEIGHTS,
    "255": np.float32(255),
    "first": np.array([1]),
    "steep": np.float32(50),
    "one": np.float32(1),
    "minus": np.float32(-1),
}


def draw(n: int, seed: int = 0) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Images near the middle grey, and the linear model's own answers as their labels."""
    images = np.random.default_rng(seed).integers(88, 168, (n, 1, SIDE, SIDE)).astype(np.uint8)
    return images, ((to_float_array(images).reshape(n, -1) - 0.5) @ WEIGHTS).argmax(1)


def make_model(nodes: list[onnx.NodeProto], classes: int = CLASSES, **constants: Any) -> onnx.ModelProto:
    """A graph from ``x`` to ``y``, with those of the constants that it reads."""
    read = {name for one in nodes for name in one.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", classes])],
        [
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in (CONSTANTS | constants).items()
            if name in read
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def write(
    path: Path,
    model: onnx.ModelProto,
    images: np.ndarray[Any, Any],
    labels: np.ndarray[Any, Any],
    *,
    correct: np.ndarray[Any, Any] | None = None,
    eps: str = EPS,
    norm: Any = "Linf",
    classes: int = CLASSES,
    side: int = SIDE,
) -> Path:
    """Seal by hand: every image that is correct is called robust."""
    n = len(images)
    correct = np.ones(n, bool) if correct is None else correct
    none = np.zeros(0, np.int64)
    nothing = np.zeros((0, 1, side, side))
    evidence = Evidence(
        *(images, labels.astype(np.int64), correct, correct),
        *(nothing.astype(np.uint8), none, nothing.astype(np.float32), none),
    ).to_bytes()
    claim = Claim(
        samples=n,
        clean_correct=int(correct.sum()),
        robust=int(correct.sum()),
        norm=norm,
        eps=eps,
        suite="verify@1",
        seeds=(1, 2),
        versions={},
        runtime={},
        class_names=tuple("abcdefgh"[:classes]),
        preprocessing={"channels": 1, "image_size": side},
        precision={"name": "fp32"},
        dataset={"name": "d", "split": "test", "digest": "0" * 64, "total": n, "draw": "draw@1"},
        recipe=None,
        teacher=None,
        student=None,
        licences=None,
        evidence=sha256_bytes(evidence),
        model=model_digest(model),
    ).sealed()
    evidence_path(path).write_bytes(evidence)
    path.write_bytes(model_bytes(with_claim(model, claim)))
    return path


def check(path: Path, **options: Any) -> Verdict:
    return verify(path, threads=1, **{"seed": 7} | options)


def status(verdict: Verdict) -> dict[str, str]:
    return {check.name: check.status for check in verdict.checks}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def test_the_linear_model_without_tricks_is_an_honest_file(path: Path) -> None:
    images, labels = draw(64)
    assert check(write(path, make_model([*LINEAR[:2], node("MatMul", ["centred", "weights"], ["y"])]), images, labels,
                       eps="1/100000")).exit_code == 0  # fmt: skip


# Ties


@pytest.mark.parametrize(("least", "code"), [(1e-6, 1), (1e-20, 1), (0.0, 3)])
def test_logits_that_shrink_off_the_grid(path: Path, least: float, code: int) -> None:
    images, labels = draw(128)
    amplitude = [node("Add", ["on", "least"], ["amplitude"]), node("Mul", ["z", "amplitude"], ["y"])]
    model = make_model([*LINEAR, *ON_GRID, *amplitude], least=np.float32(least))
    verdict = check(write(path, model, images, labels))
    assert (verdict.exit_code, status(verdict)["gradients"]) == (code, "passed")
    if least:
        assert verdict.broken > 100
    else:
        assert any("tie" in alarm for alarm in verdict.alarms)


def test_errors_by_less_than_the_tolerance_are_ties(path: Path) -> None:
    # The margin m is kept where it is right; where it is wrong, only a millionth of it is admitted. A third logit far
    # below keeps the range of the logits wide.
    nodes = [
        *LINEAR[:2],
        node("MatMul", ["centred", "w"], ["m"]),
        node("Relu", ["m"], ["right"]),
        node("Sub", ["m", "right"], ["wrong"]),
        node("Mul", ["wrong", "tiny"], ["little"]),
        node("Add", ["right", "little"], ["lead"]),
        node("MatMul", ["lead", "pick"], ["two"]),
        node("Add", ["two", "low"], ["y"]),
    ]
    w = WEIGHTS[:, :1] - WEIGHTS[:, 1:2]
    images, _ = draw(600)
    kept = ((to_float_array(images).reshape(600, -1) - 0.5) @ w)[:, 0] > 1
    images = images[kept][:64]
    model = make_model(
        nodes,
        w=w,
        tiny=np.float32(1e-6),
        pick=np.array([[1, 0, 0]], np.float32),
        low=np.array([[0, 0, -20]], np.float32),
    )
    verdict = check(write(path, model, images, np.zeros(64)))
    assert verdict.exit_code == 3
    assert verdict.broken == 0
    assert any("tie" in alarm for alarm in verdict.alarms)


@pytest.mark.parametrize("step", [0.3, 1e-5])
def test_logits_of_few_bits_do_not_excuse_a_tie_on_every_image(path: Path, step: float) -> None:
    # The margin is kept where it is right; where it is wrong, a tie stands for it, until it is beyond what eps can do.
    nodes = [
        *LINEAR[:2],
        node("MatMul", ["centred", "w"], ["m"]),
        node("Relu", ["m"], ["right"]),
        node("Sub", ["m", "right"], ["wrong"]),
        node("Mul", ["wrong", "tiny"], ["little"]),
        node("Add", ["m", "beyond"], ["above"]),
        node("Neg", ["above"], ["below"]),
        node("Relu", ["below"], ["far"]),
        node("Sum", ["right", "little"], ["near"]),
        node("Sub", ["near", "far"], ["lead"]),
        node("MatMul", ["lead", "pick"], ["two"]),
        node("Add", ["two", "low"], ["exact"]),
    ]
    if step > 1e-3:
        nodes.append(node("QuantizeLinear", ["exact", "step", "zero"], ["levels"]))
    else:
        nodes += [
            node("Div", ["exact", "step"], ["ratio"]),
            node("Cast", ["ratio"], ["levels"], to=TensorProto.INT32),
        ]
    nodes.append(node("DequantizeLinear", ["levels", "step"], ["y"]))
    w = WEIGHTS[:, :1] - WEIGHTS[:, 1:2]
    images, _ = draw(600)
    images = images[((to_float_array(images).reshape(600, -1) - 0.5) @ w)[:, 0] > 1][:64]
    model = make_model(
        nodes,
        w=w,
        tiny=np.float32(1e-6),
        beyond=np.float32(6),
        pick=np.array([[1, 0, 0]], np.float32),
        low=np.array([[0, 0, -20]], np.float32),
        step=np.float32(step),
        zero=np.int8(0),
    )
    if step > 1e-3:
        model.graph.node[-1].input.append("zero")
    verdict = check(write(path, model, images, np.zeros(64)))
    assert (verdict.exit_code, status(verdict)["gradients"], verdict.broken) == (3, "passed", 0)
    assert any("tie" in alarm for alarm in verdict.alarms)


# Batches


def depend_on_batch(known: tuple[int, ...]) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
    """Operators that give ``a``: 1 in a batch of a known size, 0 in every other."""
    nodes = [node("Shape", ["x"], ["size"], start=0, end=1), node("Cast", ["size"], ["batch"], to=TensorProto.FLOAT)]
    constants = {f"known{turn}": np.float32(size) for turn, size in enumerate(known)}
    for turn in range(len(known)):
        nodes.append(node("Sub", ["batch", f"known{turn}"], [f"off{turn}"]))
        nodes.append(node("Mul", [f"off{turn}", f"product{turn - 1}" if turn else "one"], [f"product{turn}"]))
    last = f"product{len(known) - 1}"
    nodes += [*absolute(last, "far from all"), node("Sub", ["one", "far from all"], ["close"])]
    return [*nodes, node("Relu", ["close"], ["a"])], constants


@pytest.mark.parametrize("seed", range(3))
def test_a_file_that_answers_only_in_batches_of_known_sizes(path: Path, seed: int) -> None:
    images, labels = draw(63)
    labels[0] = (labels[0] + 1) % CLASSES
    nodes, constants = depend_on_batch((1, 63, 16))
    model = make_model([*LINEAR, *nodes, node("Mul", ["z", "a"], ["y"])], **constants)
    verdict = check(write(path, model, images, labels, correct=np.arange(63) > 0), seed=seed)
    assert verdict.exit_code == 3
    assert status(verdict)["determinism"] == "undecided"


def test_a_file_that_depends_on_its_batch_only_off_the_grid(path: Path) -> None:
    # Natural pictures are answered alike in all batches; attacked ones are broken only when they come alone.
    images, labels = draw(64)
    nodes, constants = depend_on_batch((1,))
    amplitude = [
        node("Add", ["on", "on"], ["surely on"]),
        node("Add", ["surely on", "a"], ["known"]),
        node("Sub", ["one", "known"], ["unknown"]),
        node("Relu", ["unknown"], ["off"]),
        node("Sub", ["one", "off"], ["some"]),
        node("Mul", ["off", "sum"], ["shift"]),
        node("Mul", ["z", "some"], ["scaled"]),
        node("Add", ["scaled", "shift"], ["y"]),
    ]
    keep = labels == 0
    images, labels = images[keep], labels[keep]
    model = make_model([*LINEAR, *ON_GRID, *nodes, *amplitude], sum=np.array([5, 0, -5], np.float32), **constants)
    verdict = check(write(path, model, images, labels))
    assert verdict.exit_code == 3
    assert status(verdict)["determinism"] == "passed"
    assert any("alone" in alarm for alarm in verdict.alarms)


def test_a_constant_added_to_all_logits_buys_no_room_for_a_batch(path: Path) -> None:
    images, labels = draw(40)
    nodes, constants = depend_on_batch((1,))
    nodes += [
        node("Mul", ["a", "shift"], ["own"]),
        node("Add", ["z", "own"], ["moved"]),
        node("Add", ["moved", "offset"], ["y"]),
    ]
    constants |= {"shift": np.array([0.5, 0, 0], np.float32), "offset": np.float32(1e5)}
    verdict = check(write(path, make_model([*LINEAR, *nodes], **constants), images, labels, eps="1/100000"))
    assert verdict.exit_code == 3
    assert status(verdict)["determinism"] == "undecided"


# Gradients


@pytest.mark.parametrize("strength", [1e-3, 1e-2])
def test_a_decoy_does_not_hide_that_the_output_is_saturated(path: Path, strength: float) -> None:
    # The answer is a step of w, written so that its gradient is zero, and a little of another direction is added.
    rng = np.random.default_rng(3)
    w, decoy = rng.standard_normal((2, PIXELS, 1)).astype(np.float32)
    decoy -= w * (decoy.T @ np.sign(w)) / (w.T @ np.sign(w))
    decoy = (strength * decoy / np.abs(decoy).sum()).astype(np.float32)
    nodes = [
        *LINEAR[:2],
        node("MatMul", ["centred", "w"], ["m"]),
        node("Mul", ["m", "slope"], ["s"]),
        node("Add", ["s", "one"], ["above"]),
        node("Relu", ["above"], ["ramp up"]),
        node("Sub", ["s", "one"], ["below"]),
        node("Relu", ["below"], ["ramp down"]),
        node("Sub", ["ramp up", "ramp down"], ["step"]),
        node("Sub", ["step", "one"], ["answer"]),
        node("MatMul", ["centred", "decoy"], ["little"]),
        node("Add", ["answer", "little"], ["lead"]),
        node("MatMul", ["lead", "pair"], ["y"]),
    ]
    images = rng.integers(88, 168, (2000, 1, SIDE, SIDE)).astype(np.uint8)
    m = ((to_float_array(images).reshape(2000, -1) - 0.5) @ w)[:, 0]
    kept = np.argsort(-np.abs(m))[:96]
    model = make_model(
        nodes, 2, w=w, decoy=decoy, slope=np.float32(1e3), pair=np.array([[1, -1]], np.float32)
    )  # fmt: skip
    verdict = check(write(path, model, images[kept], m[kept] < 0, eps="2/255", classes=2))
    assert (verdict.exit_code, status(verdict)["gradients"]) == (3, "passed")
    assert any("gradient is too small" in alarm for alarm in verdict.alarms)


@pytest.mark.parametrize("others", [0, 1, 80])
def test_chosen_images_of_one_class_waive_no_alarm(path: Path, others: int) -> None:
    # Off the grid everything ties, and a tie reads as class 0, the only one among the images that are right.
    images, labels = draw(400)
    zero = np.flatnonzero(labels == 0)[: 80 + others]
    labels = labels[zero]
    labels[80:] = 1
    model = make_model([*LINEAR, *ON_GRID, node("Mul", ["z", "on"], ["y"])])
    verdict = check(write(path, model, images[zero], labels, correct=np.arange(len(zero)) < 80))
    assert verdict.exit_code == 3
    assert any("eps = 0.5" in alarm for alarm in verdict.alarms)


# Policies


def test_a_radius_is_compared_in_its_own_norm(path: Path) -> None:
    images, labels = draw(64)
    plain = make_model([*LINEAR[:2], node("MatMul", ["centred", "weights"], ["y"])])
    write(path, plain, images, labels, eps="8/255", norm="L2")
    for policies, met in (
        ({"require_eps": "1/255"}, False),
        ({"require_eps": "1/255", "require_norm": "Linf"}, False),
        ({"require_eps": "8/255", "require_norm": "L2"}, True),
        ({"require_eps": "9/255", "require_norm": "L2"}, False),
    ):
        result = check(path, suite="replay", **policies).policy[0]
        assert (result.name, result.status == "met") == ("require-eps", met)
        assert "in L2" in result.detail


# Counts


def test_what_another_runtime_gets_wrong_is_not_held_against_the_claim(path: Path) -> None:
    # As if ten answers had flipped on the way to another machine: that replay differs decides nothing.
    images, labels = draw(256)
    labels[:10] = (labels[:10] + 1) % CLASSES
    plain = make_model([*LINEAR[:2], node("MatMul", ["centred", "weights"], ["y"])])
    verdict = check(write(path, plain, images, labels, eps="1/100000"))
    assert (verdict.answer, verdict.exit_code) == ("undecided", 3)
    assert (status(verdict)["replay"], verdict.attacked, verdict.broken, verdict.robust) == ("undecided", 246, 0, 246)


def test_a_single_image_that_is_broken_never_holds(path: Path) -> None:
    images, labels = draw(1)
    plain = make_model([*LINEAR[:2], node("MatMul", ["centred", "weights"], ["y"])])
    verdict = check(write(path, plain, images, labels, eps="8/255"))
    assert (verdict.broken, verdict.attacked, verdict.exit_code) == (1, 1, 3)
    assert status(verdict)["decision"] == "undecided"


def test_a_few_attacked_images_do_not_make_a_threshold_certain(path: Path) -> None:
    # At the median of the distances half of the images fall, which 3 attacked ones often do not show.
    images, labels = draw(128)
    scores = (to_float_array(images).reshape(128, -1) - 0.5) @ WEIGHTS
    rows = np.arange(128)
    gaps = (scores[rows, labels][:, None] - scores) / np.maximum(
        np.abs(WEIGHTS.T[labels] - WEIGHTS.T[:, None]).sum(2).T, 1e-9
    )
    gaps[rows, labels] = np.inf
    plain = make_model([*LINEAR[:2], node("MatMul", ["centred", "weights"], ["y"])])
    write(path, plain, images, labels, eps=f"{np.median(gaps.min(1)):.6f}")
    policies = {"min_robust_accuracy": 0.9}
    verdicts = [check(path, samples=3, seed=seed, **policies) for seed in range(12)]
    lucky = [verdict for verdict in verdicts if verdict.answer == "holds"]
    assert lucky
    assert {verdict.exit_code for verdict in lucky} == {3}
    assert all("95 % bounds" in verdict.policy[0].detail for verdict in lucky)


def test_a_part_of_the_images_can_meet_a_threshold(path: Path) -> None:
    images, labels = draw(128)
    plain = make_model([*LINEAR[:2], node("MatMul", ["centred", "weights"], ["y"])])
    write(path, plain, images, labels, eps="1/100000")
    for threshold, code in ((0.9, 0), (0.99, 3)):
        verdict = check(path, samples=60, min_robust_accuracy=threshold)
        assert verdict.exit_code == code
    result = check(path, samples=60, min_robust_accuracy=0.9).policy[0]
    # 0.025 ** (1 / 128) * 0.025 ** (1 / 60), in closed form since none fell
    assert f"{0.025 ** (1 / 128 + 1 / 60):.4f}" in result.detail


# The gate


def test_the_gate_looks_at_pictures_that_nobody_could_foresee(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An importer that goes wrong only off the grid, as one might where it has a fault that a file knows of.
    forward = GraphModule.forward

    def faulty(self: GraphModule, x: torch.Tensor) -> torch.Tensor:
        off = (255 * x - (255 * x).round()).abs().flatten(1).amax(1) > 0.01
        return forward(self, x) + 0.1 * off.float()[:, None] * torch.tensor([1.0, 0.0, 0.0])

    images, labels = draw(32)
    plain = make_model([*LINEAR[:2], node("MatMul", ["centred", "weights"], ["y"])])
    write(path, plain, images, labels, eps="1/1000")
    assert status(check(path))["gradients"] == "passed"
    monkeypatch.setattr(GraphModule, "forward", faulty)
    verdict = check(path)
    assert (verdict.exit_code, status(verdict)["gradients"]) == (3, "undecided")


# Memory


def test_a_file_that_would_fill_the_memory_is_not_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = draw(4)
    nodes = [
        *LINEAR,
        node("OneHot", ["first", "many", "pair"], ["large"]),
        node("ReduceSum", ["large"], ["nothing"], keepdims=0),
        node("Add", ["z", "nothing"], ["y"]),
    ]
    write(
        path,
        make_model(nodes, first=np.array([0]), many=np.array(2**40), pair=np.array([0, 1], np.float32)),
        images,
        labels,
    )

    def opened(*arguments: object, **options: object) -> None:
        raise AssertionError("the file was opened")

    monkeypatch.setattr(opening, "open_session", opened)
    verdict = check(path)
    assert (verdict.exit_code, status(verdict)) == (3, {"structure": "undecided"})
    assert "OneHot" in verdict.checks[0].detail
