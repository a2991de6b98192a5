"""The same checkpoint and seed give the same files, whatever process, folder and order of hashing made them.

Signatures are the exception: ECDSA draws a number for each.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressor.checkpoint import save_checkpoint
from compressor.core.types import ModelSpec
from compressor.models.classifier import build_classifier

ROOT = Path(__file__).parents[3]
SIDE = 8


def draw_pictures(root: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for label in ("left", "none", "right"):
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(60, 190, (SIDE, SIDE, 3))
                pixels[:, : SIDE // 2] += 60 * (label == "left")
                pixels[:, SIDE // 2 :] += 60 * (label == "right")
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / label / f"{number:02d}.png")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders that hold the same checkpoint and pictures under other names."""
    classifier = build_classifier(ModelSpec("mobilenetv2-0.25", 3, SIDE), seed=0).eval()
    found = []
    for name in ("one", "another-place"):
        place = tmp_path_factory.mktemp(name)
        draw_pictures(place / f"{name}-pictures")
        save_checkpoint(place / f"{name}.safetensors", classifier, {})
        found.append(place)
    return found[0], found[1]


def export(place: Path, hash_seed: int, *more: str) -> dict[str, bytes]:
    """What one process writes: the bytes of each file by its name."""
    (checkpoint,), (pictures,) = place.glob("*.safetensors"), place.glob("*-pictures")
    command = [sys.executable, "-m", "cli", "export", checkpoint.name, "--data", f"imagefolder:{pictures.name}"]
    command += ["--output", "files", "--seed", "3", "--threads", "1", "--eps", "1/255", "--json", "--force", *more]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": str(hash_seed),
        "COMPRESS_CACHE_DIR": str(place / f"cache-{hash_seed}"),
        "TMPDIR": str(place),
    }
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done.stderr  # of a network that was never trained, alarms may ring
    assert len(json.loads(done.stdout)["exports"]) > 0
    return {path.name: path.read_bytes() for path in (place / "files").iterdir()}


def precisions(*names: str) -> list[str]:
    return [word for name in names for word in ("--precision", name)]


@pytest.mark.slow
def test_model_claim_and_evidence_of_each_precision_are_the_same(places: tuple[Path, Path]) -> None:
    wanted = [*precisions("fp32", "fp16", "int8"), "--evidence-samples", "12", "--opset", "17"]
    first, second = (export(place, seed, *wanted) for place, seed in zip(places, (3, 4), strict=True))
    assert len(first) == 6
    assert {name for name in first if first[name] != second[name]} == set()


CONVERT = """
import hashlib, sys
import torch
from compressor.models.classifier import build_classifier
from compressor.core.types import ModelSpec
from exporters.writing.onnx import export_onnx, serialise
from exporters.precision.half import to_half
from exporters.precision.integer import Int8Settings, to_int8
from exporters.precision.search import fragile_operators

torch.set_num_threads(1)
model = export_onnx(build_classifier(ModelSpec("wideresnet-10-1", 3, 8), seed=0), 8, opset=13)
x = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
settings = Int8Settings("entropy", left_out=fragile_operators(model, x))
for made in (model, to_half(model, x).model, to_int8(model, x), to_int8(model, x, settings)):
    print(hashlib.sha256(serialise(made)).hexdigest())
"""


def test_the_model_of_each_precision_is_the_same_from_any_process(tmp_path: Path) -> None:
    told = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed, "TMPDIR": str(folder)}
        command = [sys.executable, "-W", "ignore", "-c", CONVERT]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        told.append(done.stdout.split())
    assert told[0] == told[1]
    assert len(set(told[0])) == 4
