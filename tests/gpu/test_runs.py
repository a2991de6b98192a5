"""Whole runs on the device: they learn what the CPU's learn, and go on to the bit where they were stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.checkpoint import load_checkpoint
from compressor.core.errors import Interrupted
from compressor.core.registry import METHODS
from compressor.numerics.augment import to_float_tensor
from compressor.runs.run_folder import RunFolder
from compressor.training.teaching.label_cache import LabelView, open_label_cache
from compressor.training.teaching.label_file import LabelKey
from compressor.training.teaching.soft_labels import SoftLabels
from compressor.training.teaching.teacher import FrozenTeacher

Run = Callable[..., Any]
CPU = torch.device("cpu")


@pytest.mark.parametrize("method", sorted(METHODS.members()))
def test_every_method_trains_as_on_the_cpu(method: str, run: Run, device: torch.device) -> None:
    # Without a random start both begin at the same images. Later steps follow signs of gradients, so losses drift.
    flags: dict[str, Any] = {"epochs": 1, "attack_start": "none", "augmentation": "crop-flip", "learning_rate": 0.01}
    here, there = run("here", method, CPU, **flags), run("there", method, device, **flags)
    for name, expected in here.metrics[0]["loss"].items():
        # TRADES begins where its objective is 0 and so is its gradient: rounding alone decides which way it goes.
        drift = 0.3 if method == "trades" else 0.03
        assert there.metrics[0]["loss"][name] == pytest.approx(expected, rel=drift, abs=0.01), name
    assert load_checkpoint(there.last).spec == load_checkpoint(here.last).spec


RESUMED: list[tuple[str, dict[str, Any]]] = [
    ("rslad", {}),
    ("rslad", {"outer_precision": "bf16", "precision": "bf16"}),
    ("sat", {"outer_precision": "fp16"}),
    ("sat", {"outer_precision": "fp16", "awp_gamma": 0.005, "awp_warmup": 0.0}),
    ("adaad", {"outer_precision": "bf16"}),
    ("iad", {"frozen_twin": False}),
    ("sat", {"accumulation": 2, "attack_warm_start": True}),
    ("trades", {"weight_average": "ema"}),
    ("natural", {"weight_average": "swa", "swa_start": 0.0}),
]


@pytest.mark.parametrize(
    ("method", "flags"), RESUMED, ids=[f"{method}-{'-'.join(map(str, flags.values()))}" for method, flags in RESUMED]
)
@pytest.mark.usefixtures("deterministic")
def test_a_resumed_run_is_its_uninterrupted_twin_to_the_bit(
    method: str, flags: dict[str, Any], run: Run, device: torch.device
) -> None:
    whole = run("whole", method, device, **flags)
    with pytest.raises(Interrupted):
        run("parts", method, device, stop_after=4, **flags)
    parts = run("parts", method, device, resume=True, **flags)
    assert parts.metrics == whole.metrics
    assert parts.last.read_bytes() == whole.last.read_bytes()
    assert parts.best.read_bytes() == whole.best.read_bytes()


def test_the_scale_of_an_fp16_loss_is_part_of_the_state(run: Run, device: torch.device, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run("half", "sat", device, stop_after=2, outer_precision="fp16")
    saved = RunFolder(tmp_path / "half").load_state()
    assert saved is not None
    assert saved["scaler"]["scale"] > 1
    assert saved["scaler"].keys() >= {"growth_factor", "backoff_factor", "_growth_tracker"}


def test_a_checkpoint_of_the_device_is_read_on_the_cpu(
    run: Run, device: torch.device, pictures: tuple[Tensor, Tensor], near: Callable[..., None]
) -> None:
    loaded = load_checkpoint(run("run", "natural", device).last)
    assert {p.device for p in loaded.classifier.parameters()} == {CPU}
    x = to_float_tensor(pictures[0])
    expected = loaded.classifier.eval()(x)
    near(loaded.classifier.to(device)(x.to(device)), expected)


@pytest.mark.filterwarnings("ignore")  # the compiler recommends TF32, among other things
def test_compiled_training_computes_the_same(run: Run, device: torch.device) -> None:
    if device.type == "cpu":
        pytest.skip("tests/training/test_session.py compiles on the CPU")
    plain = run("plain", "sat", device, epochs=1, attack_start="none")
    compiled = run("compiled", "sat", device, epochs=1, attack_start="none", compile=True)
    expected = plain.metrics[0]["loss"]["total"]
    assert compiled.metrics[0]["loss"]["total"] == pytest.approx(expected, rel=0.02)


@pytest.mark.usefixtures("deterministic")
def test_the_label_cache_changes_no_bit(run: Run, device: torch.device) -> None:
    cold, warm = run("cold", "rslad", device), run("warm", "rslad", device)
    assert cold.last.read_bytes() == warm.last.read_bytes()
    assert cold.metrics == warm.metrics


@pytest.mark.usefixtures("deterministic")
def test_cold_and_warm_labels_are_the_same(
    device: torch.device, classifier: nn.Module, pictures: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    expected = classifier(to_float_tensor(pictures[0])).detach()
    teacher = FrozenTeacher(classifier.to(device))
    key = LabelKey("wrn", "ab" * 32, "none", "relu", "fp32", "stripes", "cd" * 32, 16, 24, 1, 3)
    cache = open_label_cache(key, limit=10**6, folder=tmp_path)
    assert cache is not None
    x, index, variants = to_float_tensor(pictures[0].to(device)), np.arange(24), np.zeros(24, dtype=np.int64)
    labels = SoftLabels(teacher, cache, LabelView.fresh(cache))
    cold = labels.answer(x, index, variants, labels.look_up(index, variants))
    labels.end_epoch(index, variants)
    assert labels.answered == 0
    warm = labels.answer(x, index, variants, labels.look_up(index, variants))
    assert labels.answered == 24
    half = SoftLabels(teacher).answer(x, index, variants, None)
    assert cold.device == warm.device == device
    assert torch.equal(cold, warm)
    assert torch.equal(cold, half)
    # Kept in float16: a part in 2048 of each logit.
    torch.testing.assert_close(cold.cpu(), expected, rtol=1e-3, atol=1e-3)


def test_extra_data_is_mixed_in(run: Run, device: torch.device, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    path = tmp_path / "extra.npz"
    np.savez(path, image=rng.integers(0, 256, (40, 16, 16, 3), dtype=np.uint8), label=np.arange(40) % 3)
    flags: dict[str, Any] = {"epochs": 1, "attack_start": "none", "extra_fraction": 0.5, "learning_rate": 0.01}
    for method in ("sat", "rslad"):
        here = run(f"{method}-here", method, CPU, extra=path, **flags)
        there = run(f"{method}-there", method, device, extra=path, **flags)
        expected = here.metrics[0]["loss"]["total"]
        assert there.metrics[0]["loss"]["total"] == pytest.approx(expected, rel=0.02, abs=1e-4)


def test_a_run_says_where_it_computed(run: Run, device: torch.device, tmp_path: Path) -> None:
    import json

    run("run", "natural", device, epochs=1)
    said = json.loads((tmp_path / "run" / "environment.json").read_text())
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    assert said["device"] == name
    assert said["tf32"] is False  # these tests switch it off
