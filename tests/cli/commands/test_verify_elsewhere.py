"""``compress verify`` on files that this program never wrote: what a command line says of them, and the answer."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

from cli.main import main

ASKED = ["--data", "digits", "--eps", "0.02", "--min-robust-accuracy", "0.3", "--samples", "96", "--seed", "1"]
OUTSIDE = ["--mean", "0.5", "--std", "0.25", "--threads", "1"]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ridge regression on digits, as another tool might write it: channels last, normalised outside, a softmax."""
    digits = load_digits()
    x = (np.repeat(digits.images[..., None] / 16, 3, axis=3).reshape(len(digits.images), -1) - 0.5) / 0.25
    one_hot = np.eye(10)[digits.target]
    design = np.hstack([x, np.ones((len(x), 1))])
    solution = np.linalg.solve(design.T @ design + 10 * np.eye(design.shape[1]), design.T @ one_hot)
    nodes = [
        helper.make_node("Reshape", ["serving_input", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "kernel"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["dense_1"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "keras",
        [helper.make_tensor_value_info("serving_input", TensorProto.FLOAT, ["unk__1", 8, 8, 3])],
        [helper.make_tensor_value_info("dense_1", TensorProto.FLOAT, ["unk__2", 10])],
        [
            numpy_helper.from_array(np.array([-1, 192]), "shape"),
            numpy_helper.from_array((10 * solution[:-1]).astype(np.float32), "kernel"),
            numpy_helper.from_array((10 * solution[-1]).astype(np.float32), "bias"),
        ],
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("ai.onnx.ml", 2)]
    path = tmp_path_factory.mktemp("elsewhere") / "other.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=7).SerializeToString())
    return path


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any], str]:
    capsys.readouterr()
    code = main(["verify", *words, "--json"])
    printed = capsys.readouterr()
    return code, json.loads(printed.out), printed.err


def test_it_is_held_against_what_is_required(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found, _ = answer(capsys, str(elsewhere), *ASKED, *OUTSIDE)
    assert (code, found["verdict"], found["claim"]) == (0, "holds", None)
    assert found["clean_accuracy"] > 0.85
    assert found["clean_accuracy"] > found["robust_accuracy"] > 0.3
    assert found["measured_on"]["preprocessing"]["normalization"] == {"mean": [0.5], "std": [0.25]}
    strict = [word if word != "0.3" else "0.99" for word in ASKED]
    code, found, _ = answer(capsys, str(elsewhere), *strict, *OUTSIDE)
    assert (code, found["verdict"], found["policy"][0]["status"]) == (1, "violated", "unmet")


def test_the_printed_command_repeats_it(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hard = [str(elsewhere), "--data", "digits", "--eps", "0.02", "--min-robust-accuracy", "0.3", "--samples", "64"]
    # Without the right normalisation, and with alarms: the answer is one that prints how to repeat it.
    code, found, _ = answer(capsys, *hard, "--seed", "1", "--threads", "1", "--suite", "verify", "--std", "0.001")
    assert found["failure"] is not None
    words = shlex.split(found["failure"]["command"])
    assert words[:2] == ["compress", "verify"]
    assert answer(capsys, *words[2:], "--threads", "1")[:2] == (code, found)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 3, "makes no claim"),
        (["--data", "digits"], 3, "--min-robust-accuracy"),
        (["--eps", "0.02", "--min-robust-accuracy", "0.3"], 2, "--data"),
        (["--eps", "0.02", "--data", "digits"], 2, "nothing is required"),
        (["--mean", "0.5"], 2, "--eps"),
        ([*ASKED, "--image-size", "16"], 2, "16x16"),
        ([*ASKED, "--std", "0"], 2, "not above 0"),
        ([*ASKED, "--mean", "0.5,0.5"], 2, "channels"),
        ([*ASKED, "--norm", "L3"], 2, "Linf or L2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_too_little_or_wrong_things_said(
    elsewhere: Path, words: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, printed, _ = answer(capsys, str(elsewhere), *words)
    assert found == code
    assert says in json.dumps(printed)


def test_attack_measures_the_same_file(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", "digits", "--eps", "0.02", "--samples", "64", "--seed", "1", "--json", "--suite", "quick"]
    assert main(["attack", str(elsewhere), *words, *OUTSIDE]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["clean_accuracy"] > 0.85
    assert main(["attack", str(elsewhere), *words, "--threads", "1"]) == 0, "without its normalisation it is another"
    assert json.loads(capsys.readouterr().out)["clean_accuracy"] != measured["clean_accuracy"]


def test_inspect_says_how_it_wants_its_images(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(elsewhere), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["classes"], found["image_size"]) == (10, 8)
    assert found["input"] == "images of 8x8x3, any number at once"
