"""The kernel of trust: it verifies where nothing that trains can be imported, and needs only its own few packages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.contracts import Split
from compressor.types import Threat
from exporters.evidence import evidence_path
from exporters.sealing import seal

ROOT = Path(__file__).parents[2]
SIDE = 6
BLOCKED = (
    *("compressor.training", "compressor.methods", "compressor.models", "compressor.evaluation"),
    *("compressor.checkpoint", "torchvision", "accelerate", "timm", "pyautoattack", "autoattack", "safetensors"),
    *("sklearn", "scipy", "onnxscript", "onnx_ir", "matplotlib"),
)

VERIFY = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if any(name == blocked or name.startswith(blocked + ".") for blocked in BLOCKED):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Block())
for name in BLOCKED:
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    sys.exit(f"{name} can be imported: the test shows nothing")

import json
from pathlib import Path
from exporters import verify

verdict = verify(Path(sys.argv[1]), seed=0, threads=1)
files = {name.partition(".")[0]: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()
         if "." not in name}
used = {name for name, file in files.items() if "site-packages" in file}
print(json.dumps({"verdict": verdict.to_json(), "used": sorted(used)}))
"""


class Pictures:
    """Three classes of pictures that a linear model tells apart, from faint to plain."""

    name, class_names, image_size = "pictures", ("a", "b", "c"), SIDE

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.patterns = rng.uniform(-1, 1, (3, 3 * SIDE * SIDE))
        labels = rng.integers(0, 3, 200)
        x = 0.5 + 0.35 * rng.uniform(0, 1, (200, 1)) * self.patterns[labels]
        pixels = np.rint(255 * x.clip(0.1, 0.9)).astype(np.uint8).reshape(-1, 3, SIDE, SIDE)
        self._split = Split(pixels, labels.astype(np.int64))

    def has(self, split: str) -> bool:
        return split == "test"

    def load(self, split: str) -> Split:
        return self._split


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sealed linear classifier and its evidence, a few kilobytes."""
    data: Any = Pictures()
    weights = (10 * (data.patterns - data.patterns.mean(0))).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["input"], ["flat"], axis=1),
            helper.make_node("Gemm", ["flat", "W", "b"], ["logits"], transB=1),
        ],
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(weights, "W"), numpy_helper.from_array(-0.5 * weights.sum(1), "b")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    sealed = seal(proto, data, Threat("Linf", "0.02"), samples=64, threads=1)
    path = tmp_path_factory.mktemp("kernel") / "model.onnx"
    path.write_bytes(sealed.model)
    evidence_path(path).write_bytes(sealed.evidence)
    return path


@pytest.fixture(scope="module")
def answer(model: Path) -> dict[str, Any]:
    script = f"BLOCKED = {BLOCKED!r}\n{VERIFY}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(model)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_it_verifies_where_nothing_that_trains_can_be_imported(answer: dict[str, Any]) -> None:
    verdict = answer["verdict"]
    assert verdict["verdict"] == "holds"
    assert verdict["attacked"] > 10
    assert {check["name"] for check in verdict["checks"]} >= {"digests", "replay", "gate", "attacks", "alarms"}


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=;\[ ]", requirement)[0].lower() for requirement in requirements}


def test_its_packages_are_the_group_that_the_small_image_installs(answer: dict[str, Any]) -> None:
    """What is imported is in the group, or comes with what is; and the group asks for the project's own versions."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    group, project = pyproject["dependency-groups"]["verify"], pyproject["project"]["dependencies"]
    assert set(group) <= set(project)
    assert not names(group) & {name.lower() for name in BLOCKED}
    ours = names(project) | {"pil", "sklearn"}
    assert {name.lower() for name in answer["used"]} & ours <= names(group) | {"onnxruntime", "pil"}


def test_other_names_are_not_there() -> None:
    import exporters

    with pytest.raises(AttributeError, match="verified"):
        exporters.verified  # noqa: B018
