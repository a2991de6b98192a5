"""Files that answer by what attacks cannot see, beside a decoy that they can: sealed by hand, every digest right.

Each image holds a faint pattern that no eye sees and a coarse one that every change of half the range undoes. The files
answer by both together, so that the faint one decides; a change of eps against it breaks every image. Their gradients
show the coarse one alone.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import exporters
from compressor.core.types import Threat
from exporters.claim.claim import model_bytes
from exporters.claim.evidence import to_float_array
from exporters.file_attacks.gradients import is_softmax
from exporters.model_file.runtime import open_session
from exporters.verification.verdict import Verdict

from .test_liars import write

verify = partial(exporters.verify, isolate=False)

SIDE, CLASSES = 24, 2
PIXELS = SIDE * SIDE
THREAT = Threat("Linf", "8/255")
RNG = np.random.default_rng(0)

node = helper.make_node

COARSE_SIGNS = np.repeat(np.where(np.arange(SIDE) < SIDE // 2, 1.0, -1.0)[None], SIDE, 0).reshape(-1)
FAINT_SIGNS = np.concatenate([RNG.permutation(np.repeat([1.0, -1.0], SIDE // 4)) for _ in range(2 * SIDE)])
"""As many of each sign under both halves of the coarse pattern, so that neither moves the other."""

SEEN = [
    node("Reshape", ["x", "shape"], ["pixels"]),
    node("Sub", ["pixels", "half"], ["centred"]),
    node("MatMul", ["centred", "coarse"], ["decoy"]),
]
HIDDEN = [node("MatMul", ["centred", "faint"], ["m"])]
LEAD = [node("Add", ["hidden", "decoy"], ["lead"]), node("MatMul", ["lead", "pair"], ["y"])]
TRUTH_TO_STEP = [
    node("Cast", ["truth"], ["number"], to=TensorProto.FLOAT),
    node("Sub", ["number", "half"], ["step"]),
    node("Mul", ["step", "tall"], ["hidden"]),
]
CONSTANTS: dict[str, Any] = {
    "shape": np.array([-1, PIXELS]),
    "half": np.float32(0.5),
    "faint": (FAINT_SIGNS / PIXELS).astype(np.float32)[:, None],
    "coarse": (COARSE_SIGNS / PIXELS).astype(np.float32)[:, None],
    "pair": np.array([[1, -1]], np.float32),
    "zero": np.float32(0),
    "one": np.float32(1),
    "tall": np.float32(0.3),
    "strong": np.float32(8),
    "levels": np.float32(1023),
    "table": (np.arange(1024) / 1023 - 0.5).astype(np.float32),
    "zero point": np.uint8(0),
}


def draw(n: int = 96) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Images whose faint pattern would be undone by 0.7 eps, and whose coarse one by a change of 0.05."""
    rng = np.random.default_rng(1)
    sign = rng.choice([-1.0, 1.0], (n, 1))
    x = 0.5 + rng.uniform(-0.1, 0.1, (n, PIXELS))
    for signs, strength in ((FAINT_SIGNS, 0.7 * THREAT.radius), (COARSE_SIGNS, 0.05)):
        x += (sign * strength - (x - 0.5) @ signs[:, None] / PIXELS) * signs
    return np.rint(255 * x).astype(np.uint8).reshape(n, 1, SIDE, SIDE), (sign[:, 0] < 0).astype(np.int64)


def make_model(*nodes: onnx.NodeProto, **constants: Any) -> onnx.ModelProto:
    """What computes ``hidden``, between what every file here has in common."""
    everything = [*SEEN, *nodes, *LEAD]
    read = {name for one in everything for name in one.input}
    values = {name: np.asarray(value) for name, value in (CONSTANTS | constants).items() if name in read}
    graph = helper.make_graph(
        everything,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def check(model: onnx.ModelProto, folder: Path, **options: Any) -> Verdict:
    """The verdict on a claim that every image is robust."""
    images, labels = draw()
    path = write(folder / "model.onnx", model, images, labels, eps=THREAT.eps, classes=CLASSES, side=SIDE)
    return verify(path, threads=1, **{"seed": 7} | options)


def robust(model: onnx.ModelProto) -> float:
    """The part of the images that stands when the faint pattern is turned against them."""
    images, labels = draw()
    change = np.float32(0.999 * THREAT.radius) * np.where(labels == 0, 1, -1)[:, None] * FAINT_SIGNS
    x = (to_float_array(images) - change.reshape(images.shape)).clip(0, 1).astype(np.float32)
    session = open_session(model_bytes(model), threads=1)
    assert (session(to_float_array(images)).argmax(1) == labels).all()
    return float((session(x).argmax(1) == labels).mean())


def steep(slope: float) -> dict[str, np.float32]:
    """A constant by which a saturating operator reaches its end at a 40th, say, of the images' distance from zero."""
    return {"slope": np.float32(slope / (0.7 * THREAT.radius)), "tall": np.float32(0.15)}


LIARS = {
    "a comparison": make_model(*HIDDEN, node("Greater", ["m", "zero"], ["truth"]), *TRUTH_TO_STEP),
    "a comparison beside a useless quantiser": make_model(
        node("QuantizeLinear", ["zero", "one", "zero point"], ["q"]),
        node("DequantizeLinear", ["q", "one", "zero point"], ["nothing"]),
        *HIDDEN,
        node("Greater", ["m", "nothing"], ["truth"]),
        *TRUTH_TO_STEP,
    ),
    "the position of the larger of two": make_model(
        *HIDDEN,
        node("MatMul", ["m", "pair"], ["both"]),
        node("ArgMin", ["both"], ["truth"], axis=1),
        *TRUTH_TO_STEP,
    ),
    "a table of pixels": make_model(
        node("Mul", ["pixels", "levels"], ["l"]),
        node("Round", ["l"], ["r"]),
        node("Cast", ["r"], ["index"], to=TensorProto.INT64),
        node("Gather", ["table", "index"], ["looked up"]),
        node("MatMul", ["looked up", "faint"], ["m"]),
        node("Mul", ["m", "strong"], ["hidden"]),
    ),
    "a steep tanh": make_model(
        *HIDDEN,
        node("Mul", ["m", "slope"], ["s"]),
        node("Tanh", ["s"], ["t"]),
        node("Mul", ["t", "tall"], ["hidden"]),
        **steep(40),
    ),
    "a tanh": make_model(
        *HIDDEN,
        node("Mul", ["m", "slope"], ["s"]),
        node("Tanh", ["s"], ["t"]),
        node("Mul", ["t", "tall"], ["hidden"]),
        **steep(12),
    ),
    "a ramp of two ReLU": make_model(
        *HIDDEN,
        node("Mul", ["m", "slope"], ["s"]),
        node("Add", ["s", "half"], ["above"]),
        node("Relu", ["above"], ["up"]),
        node("Sub", ["s", "half"], ["below"]),
        node("Relu", ["below"], ["down"]),
        node("Sub", ["up", "down"], ["ramp"]),
        node("Sub", ["ramp", "half"], ["step"]),
        node("Mul", ["step", "tall"], ["hidden"]),
        **steep(10) | {"tall": np.float32(0.3)},
    ),
    "ripples": make_model(
        *HIDDEN,
        node("Mul", ["decoy", "frequency"], ["phase"]),
        node("Sin", ["phase"], ["wave"]),
        node("Mul", ["wave", "height"], ["ripples"]),
        node("Mul", ["m", "strong"], ["slope"]),
        node("Add", ["slope", "ripples"], ["hidden"]),
        frequency=np.float32(3e4),
        height=np.float32(0.02),
    ),
    "a rounding that moves nothing": make_model(
        *HIDDEN,
        node("Mul", ["decoy", "frequency"], ["phase"]),
        node("Sin", ["phase"], ["wave"]),
        node("Mul", ["wave", "height"], ["less than a half"]),
        node("Round", ["less than a half"], ["nothing"]),
        node("Add", ["m", "nothing"], ["sum"]),
        node("Mul", ["sum", "strong"], ["hidden"]),
        frequency=np.float32(200),
        height=np.float32(0.4),
    ),
}


@pytest.mark.parametrize("trick", LIARS)
def test_gradients_that_do_not_account_for_the_answers(trick: str, tmp_path: Path) -> None:
    model = LIARS[trick]
    assert robust(model) < 0.05
    for seed in (1, 2):
        verdict = check(model, tmp_path, seed=seed)
        assert verdict.exit_code in (1, 3)
        assert {check.name: check.status for check in verdict.checks}["gradients"] == "passed"
        assert any("on the way" in alarm for alarm in verdict.alarms)


def test_the_same_pattern_in_the_open_is_refuted(tmp_path: Path) -> None:
    model = make_model(*HIDDEN, node("Mul", ["m", "strong"], ["hidden"]))
    assert robust(model) == 0
    assert check(model, tmp_path).exit_code == 1


def test_the_decoy_alone_is_robust(tmp_path: Path) -> None:
    model = make_model(*HIDDEN, node("Mul", ["m", "zero"], ["hidden"]))
    assert robust(model) == 1
    assert check(model, tmp_path).exit_code == 0


def test_a_softmax_on_natural_images_alone_is_none(tmp_path: Path) -> None:
    # Whole numbers of 255ths get probabilities; elsewhere a constant is added, whose logarithm an attack would climb.
    model = make_model(
        *HIDDEN,
        node("Mul", ["pixels", "255"], ["l"]),
        node("Round", ["l"], ["whole"]),
        node("Sub", ["l", "whole"], ["rest"]),
        node("Abs", ["rest"], ["distance"]),
        node("ReduceMax", ["distance", "pixel axis"], ["off"]),
        node("Greater", ["off", "little"], ["is off"]),
        node("Mul", ["m", "strong"], ["hidden"]),
        **{"255": np.float32(255), "pixel axis": np.array([1]), "little": np.float32(1e-3)},
    )
    del model.graph.node[-1]
    model.graph.initializer.append(numpy_helper.from_array(np.float32(-1000), "low"))
    model.graph.node.extend(
        [
            node("MatMul", ["lead", "pair"], ["logits"]),
            node("Softmax", ["logits"], ["probabilities"]),
            node("Add", ["logits", "low"], ["lowered"]),
            node("Where", ["is off", "lowered", "probabilities"], ["y"]),
        ]
    )
    images, _ = draw()
    answers = open_session(model_bytes(model), threads=1)(to_float_array(images))
    assert is_softmax(answers)
    verdict = check(model, tmp_path)
    (found,) = [check for check in verdict.checks if check.name == "gradients"]
    assert found.status == "passed"
    assert "softmax" not in found.detail
    assert verdict.exit_code == 1


@pytest.mark.xfail(reason="nothing on the way between pictures meets the trigger: decision 7 says so")
def test_a_trigger_that_no_natural_picture_meets(tmp_path: Path) -> None:
    # The answer is the coarse pattern's, unless the faint one contradicts it.
    model = make_model(
        *HIDDEN,
        node("Sign", ["decoy"], ["side"]),
        node("Mul", ["m", "side"], ["alike"]),
        node("Less", ["alike", "threshold"], ["truth"]),
        node("Cast", ["truth"], ["pulled"], to=TensorProto.FLOAT),
        node("Mul", ["pulled", "side"], ["pull"]),
        node("Mul", ["pull", "away"], ["hidden"]),
        threshold=np.float32(-0.2 * THREAT.radius),
        away=np.float32(-0.3),
    )
    assert robust(model) == 0
    assert check(model, tmp_path).exit_code != 0
