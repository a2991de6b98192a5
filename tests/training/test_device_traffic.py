"""How often a GPU would be waited for, counted on the CPU: each wait that is left has its reason here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.attacks._apgd import random_start, run_apgd
from compressor.checkpoint import LoadedCheckpoint, load_checkpoint, named_normalization, probe, save_checkpoint
from compressor.core.contracts import Split, SplitName
from compressor.core.errors import AmbiguousCheckpointError
from compressor.core.reporting import SilentReporter
from compressor.core.types import ModelSpec, Threat
from compressor.evaluation.quick import measure
from compressor.frozen import FrozenTwin, surrogate_of
from compressor.models.classifier import Classifier, build_classifier
from compressor.numerics.losses import cross_entropy
from compressor.numerics.randomness import make_generator
from compressor.runs.recipe import resolve
from compressor.runs.run_folder import RunFolder
from compressor.system.interruption import StopRequest
from compressor.training.configuration import RunConfig
from compressor.training.session import train
from compressor.training.teacher_file import settle_open_questions
from tests.support.networks import Brightness

MODEL = "wideresnet-10-1"
CPU = torch.device("cpu")


class Noise:
    """Pictures of nothing, in three classes."""

    name, class_names, image_size = "noise", ("a", "b", "c"), 16

    def has(self, split: SplitName) -> bool:
        return split != "validation"

    def load(self, split: SplitName) -> Split:
        rng = np.random.default_rng(0)
        return Split(rng.integers(0, 256, (60, 3, 16, 16), dtype=np.uint8), np.arange(60) % 3)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return build_classifier(ModelSpec(MODEL, 3, 16), seed=0).eval()


@pytest.fixture
def teacher(model: nn.Module, tmp_path: Path) -> LoadedCheckpoint:
    path = tmp_path / "teacher.safetensors"
    save_checkpoint(path, model, {})
    return load_checkpoint(path)


def test_the_counter_counts_what_waits_and_nothing_else(waits: Any) -> None:
    x, kept = torch.rand(6), torch.rand(6)
    waits.host(kept)
    with waits:
        mask = x > 0.5
        bool(mask.any())
        x[mask] = 0.0
        torch.nonzero(mask)
        x.cpu().max().item()
        x.tolist()
        assert sum(waits.places.values()) == 5
        assert float(kept[kept > 0.5].sum()) >= 0
        x[torch.nonzero(kept > 0.5).squeeze(1).to("cpu")] = 1.0
        torch.where(mask, x, 0.0)
        int(torch.randint(5, (), generator=make_generator(0)))
        assert sum(waits.places.values()) == 5
        kept.to("cpu").sum().item()
    assert sum(waits.places.values()) == 6


def test_measuring_waits_twice_a_batch(waits: Any, model: nn.Module) -> None:
    images = torch.randint(0, 256, (40, 3, 16, 16), dtype=torch.uint8, generator=make_generator(0))
    labels = torch.arange(40) % 3
    twin = FrozenTwin(model, torch.rand(4, 3, 16, 16, generator=make_generator(1)))
    waits.host(images, labels)
    with waits:
        measure(model, images, labels, Threat(), steps=2, seed=0, device=CPU, batch_size=10, twin=twin)
    found = waits.functions()
    # For the logits, on which it depends which images are attacked; and for how many are right then.
    assert found == {"compressor/evaluation/quick.py measure": 2 * 4}


def test_probing_waits_once_a_candidate(waits: Any, teacher: LoadedCheckpoint) -> None:
    images, labels = torch.rand(300, 3, 16, 16), torch.arange(300) % 3
    waits.host(images, labels)
    with waits, pytest.raises(AmbiguousCheckpointError):  # it is no better than chance
        probe(teacher, images, labels)
    assert waits.functions() == {"compressor/checkpoint/probing.py _logits": 1}


@pytest.mark.parametrize("kind", ["model", "surrogate"])
def test_a_step_of_apgd_waits_for_misclassified_images(kind: str, waits: Any, model: nn.Module) -> None:
    x = torch.rand(8, 3, 16, 16, generator=make_generator(0))
    y, steps, threat = model(x).argmax(1), 4, Threat("Linf", "1/100000")
    attacked = surrogate_of(model, x) if kind == "surrogate" else model
    start = random_start(x, threat, make_generator(1))
    with waits:
        _, broken = run_apgd(
            attacked, x, y, threat, lambda logits, index: cross_entropy(logits, y[index]), start, steps=steps
        )
    assert not broken.any()
    found = waits.functions()
    # Misclassified images leave the batch; a surrogate asks its model only about those that may be misclassified.
    asked = {"compressor/frozen/surrogate.py confirm_misclassified": steps + 1} if kind == "surrogate" else {}
    assert found == {"compressor/attacks/_apgd.py run_apgd": steps + 1} | asked


@pytest.mark.parametrize(
    ("method", "precision"),
    [("natural", "fp32"), ("sat", "fp16"), ("rslad", "fp32"), ("adaad", "bf16"), ("igdm", "fp32")],
)
def test_a_training_step_waits_for_its_losses(
    method: str, precision: str, waits: Any, tmp_path: Path, teacher: LoadedCheckpoint
) -> None:
    flags = {"epochs": 1, "batch_size": 12, "image_size": 16, "attack_steps": 2, "validation_samples": 6}
    flags |= {"precision": "fp32", "selection_steps": 1, "outer_precision": precision}
    request = RunConfig(resolve(method, MODEL, None, flags), Noise(), RunFolder(tmp_path / "run"), CPU)
    given = teacher if method in ("rslad", "adaad", "igdm") else None
    with waits:
        train(request, given, reporter=SilentReporter(), stop=StopRequest())
    steps = 5
    once = ("compressor/frozen/twin.py", "compressor/evaluation/quick.py")
    found = {file: count for file, count in waits.files().items() if file not in once}
    # The losses of each step are read: a run that diverges stops at once.
    expected = {"compressor/training/step/step_losses.py": steps}
    if method == "rslad":
        expected["compressor/training/teaching/soft_labels.py"] = steps  # the CPU writes new answers at once
    if precision == "fp16":
        # The scaler skips a step whose gradients overflow; and its scale is saved, twice in so short a run.
        expected["compressor/training/loop.py"] = steps + 2
    assert found == expected


class Greys(Noise):
    def load(self, split: SplitName) -> Split:
        levels = np.arange(250, dtype=np.uint8)
        pixels = levels.reshape(-1, 1, 1, 1).repeat(3, 1).repeat(16, 2).repeat(16, 3)
        return Split(pixels, (levels > 127).astype(np.int64))


@pytest.mark.parametrize("fails", [False, True])
def test_a_checkpoint_is_settled_on_the_device_and_comes_back(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = tuple(ModelSpec(MODEL, 3, 16, normalization=named_normalization(name)) for name in ("none", "half"))
    loaded = LoadedCheckpoint(Classifier(specs[0], Brightness()).eval(), specs[0], {}, "", (), specs)
    there, trips, images = torch.device("cuda", 5), [], []
    made = [CPU] * 2  # the candidates, beside the checkpoint
    bring = Tensor.to

    def move(classifier: Classifier, device: torch.device) -> Classifier:
        trips.append(device)
        return classifier

    def to(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args != (there,):
            return bring(tensor, *args, **kwargs)
        images.append(len(tensor))
        if fails:
            raise torch.OutOfMemoryError("no room for the images")
        return tensor

    monkeypatch.setattr(Classifier, "to", move)
    monkeypatch.setattr(Tensor, "to", to)
    if fails:
        with pytest.raises(torch.OutOfMemoryError):
            settle_open_questions(loaded, Greys(), reporter=SilentReporter(), device=there)
        assert trips == [*made, there, CPU]
        return
    settled = settle_open_questions(loaded, Greys(), reporter=SilentReporter(), device=there)
    assert settled.spec == specs[1]
    assert trips == [*made, there, CPU, there, CPU]
    assert sum(images) == 2 * 250
