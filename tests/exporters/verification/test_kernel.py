"""The kernel of trust: it verifies where nothing that trains can be imported, and needs only its own few packages."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
BLOCKED = (
    *("compressor.training", "compressor.methods", "compressor.models.families", "compressor.evaluation.evaluate"),
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

verdict = verify(sys.argv[1], seed=0, threads=1, isolate=False)
files = {name.partition(".")[0]: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()
         if "." not in name}
used = {name for name, file in files.items() if "site-packages" in file}
print(json.dumps({"verdict": verdict.to_json(), "used": sorted(used)}))
"""


@pytest.fixture(scope="module")
def answer(linear: Path) -> dict[str, Any]:
    script = f"BLOCKED = {BLOCKED!r}\n{VERIFY}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(linear)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_it_verifies_where_nothing_that_trains_can_be_imported(answer: dict[str, Any]) -> None:
    verdict = answer["verdict"]
    assert verdict["verdict"] == "holds"
    assert verdict["attacked"] > 10
    assert {check["name"] for check in verdict["checks"]} >= {"digests", "replay", "gradients", "attacks", "alarms"}


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
