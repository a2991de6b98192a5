"""Pictures as large as those that phones classify: exported, sealed and verified through the real functions."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import exporters
from compressor.checkpoint import load_checkpoint, save_checkpoint
from compressor.core.types import DatasetSpec, ModelSpec, Threat
from compressor.data.datasets import open_dataset
from compressor.models.classifier import build_classifier
from exporters.artifact.app_metadata import read_app_metadata
from exporters.artifact.artifact import Exporter
from exporters.artifact.sealing import ExportSettings
from exporters.model_file.structure import declared_layout_of

verify = partial(exporters.verify, isolate=False)

SAMPLES = 4


def draw_pictures(root: Path, side: int) -> None:
    """Two classes that differ in their coarse stripes; wider than high, so that they have to be cropped."""
    rng = np.random.default_rng(0)
    stripes = np.sin(np.arange(side) / side * 8 * np.pi) > 0
    for split, count in (("train", 8), ("test", 4)):
        for name in ("across", "along"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 60, (side, side + side // 4, 3))
                if name == "across":
                    pixels[stripes] += 190
                else:
                    pixels[:, :side][:, stripes] += 190
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{number}.png")


@pytest.mark.parametrize("side", [64, pytest.param(224, marks=pytest.mark.slow)])
def test_larger_pictures_go_the_whole_way(side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(tmp_path / "cache"))
    draw_pictures(tmp_path / "pictures", side)
    dataset = open_dataset(DatasetSpec("imagefolder", str(tmp_path / "pictures")), image_size=side)
    classifier = build_classifier(ModelSpec("mobilenetv2-0.25", 2, side), seed=0)
    train = torch.from_numpy(dataset.load("train").images).float() / 255
    with torch.no_grad():
        for _ in range(20):
            classifier.train()(train)  # statistics of these pictures
    save_checkpoint(tmp_path / "student.safetensors", classifier.eval(), {})

    settings = ExportSettings(samples=SAMPLES, threads=1, opset=17, fixed_batch=2)
    exporter = Exporter(load_checkpoint(tmp_path / "student.safetensors"), dataset, Threat("Linf", "1/255"), settings)
    artifact = exporter.make("fp32", tmp_path / "model.onnx")
    model = onnx.load(artifact.path)
    form = declared_layout_of(model)
    assert (form.channels, form.height, form.width, form.batch, form.classes) == (3, side, side, 2, 2)
    notes = read_app_metadata(model)
    assert notes.preprocessing is not None
    assert (notes.class_names, notes.preprocessing["height"]) == (("across", "along"), side)
    assert artifact.parity.max_relative_error < 1e-4
    assert artifact.claim.preprocessing["image_size"] == side

    verdict = verify(artifact.path, data=dataset, seed=1, threads=1)
    checks = {check.name: check.status for check in verdict.checks}
    assert verdict.samples == SAMPLES
    assert {checks[name] for name in ("digests", "replay", "determinism", "gradients", "attacks")} == {"passed"}
    assert verdict.answer in ("holds", "undecided")  # of a network that was never trained, alarms may ring
