from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from compressor.checkpoint import load_checkpoint
from compressor.core.errors import ClassMismatchError, UnreadableDataError, UsageError, WriteError
from compressor.core.types import ModelSpec, Normalization, Threat
from compressor.evaluation.evaluate import estimate_autoattack_seconds, evaluate
from compressor.evaluation.report import Report
from compressor.evaluation.suites import Suite, SuiteColumn, describe_suite, get_suite
from compressor.models.classifier import build_classifier
from compressor.numerics.statistics import wilson_interval

THREAT = Threat("Linf", "0.05")


class Counting(nn.Module):
    """Hands on to a model, counts the images it sees, and stops the program after so many forward passes."""

    def __init__(self, model: nn.Module, limit: int | None = None) -> None:
        super().__init__()
        self.model = model
        self.limit = limit
        self.images = self.forwards = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.forwards += 1
        self.images += len(x)
        if self.limit is not None and self.forwards > self.limit:
            raise KeyboardInterrupt
        return self.model(x)


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, np.ndarray, np.ndarray]:
    """A linear classifier of real digits, and 120 of them that it was not trained on."""
    data = load_digits()
    images = np.round(data.images / 16 * 255).astype(np.uint8)[:, None]
    x, y = torch.from_numpy(images).float() / 255, torch.from_numpy(data.target)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[:1000]), y[:1000]).backward()
        optimizer.step()
    return model, images[1000:1120], data.target[1000:1120].astype(np.int64)


def run(digits: Any, **changes: Any) -> Report:
    model, images, labels = digits
    arguments = {
        "model": model,
        "images": images,
        "labels": labels,
        "threat": THREAT,
        "suite": get_suite("default"),
        "seed": 3,
        "batch_size": 32,
        "soundness": False,
    } | changes
    return evaluate(**arguments)


def same(a: Report, b: Report) -> bool:
    bits = np.array_equal(a.clean, b.clean) and all(np.array_equal(a.attacks[k], b.attacks[k]) for k in a.attacks)
    said = all(np.array_equal(a.predictions[k], b.predictions[k]) for k in a.predictions)
    return bits and said and a.to_json() == b.to_json()


def test_bits_are_those_of_the_model_and_of_each_attack_alone_on_all_images(digits: Any) -> None:
    model, images, labels = digits
    report = run(digits)
    x, y = torch.from_numpy(images).float() / 255, torch.from_numpy(labels)
    np.testing.assert_array_equal(report.clean, (model(x).argmax(1) == y).numpy())
    assert 0.5 < report.clean_accuracy < 1
    assert list(report.attacks) == ["FGSM", "PGD-20", "CW_inf"]
    # FGSM has no noise, so its bits are known.
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), x)
    broken = model((x + 0.05 * gradient.sign()).clamp(0, 1)).argmax(1) != y
    np.testing.assert_array_equal(report.attacks["FGSM"], report.clean & ~broken.numpy())
    for bits in report.attacks.values():
        assert not (bits & ~report.clean).any()
        assert 0 < bits.sum() < report.clean.sum()


def test_the_worst_case_is_the_and_of_all(digits: Any) -> None:
    report = run(digits)
    expected = report.clean.copy()
    for bits in report.attacks.values():
        expected &= bits
    np.testing.assert_array_equal(report.robust, expected)
    assert report.robust_accuracy == expected.mean()
    assert report.robust_accuracy <= min(report.accuracies.values())


def test_json_has_the_fields_of_the_contract(digits: Any) -> None:
    report = run(digits)
    value = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert value["schema"] == "compress.attack/1"
    assert value["samples"] == 120
    assert value["eps"] == "0.05"
    assert value["norm"] == "Linf"
    assert value["suite"] == "default@1"
    assert value["seed"] == 3
    assert value["alarms"] == []
    assert value["clean_accuracy"] == report.clean.sum() / 120
    assert value["robust_accuracy"] == report.robust.sum() / 120
    assert value["attacks"] == {name: bits.sum() / 120 for name, bits in report.attacks.items()}
    assert value["intervals"]["clean_accuracy"] == list(wilson_interval(int(report.clean.sum()), 120))
    assert value["intervals"]["robust_accuracy"] == list(wilson_interval(int(report.robust.sum()), 120))
    low, high = value["intervals"]["attacks"]["CW_inf"]
    assert low < value["attacks"]["CW_inf"] < high


def test_arrays_tensors_and_mapped_files_give_one_report(digits: Any, tmp_path: Path) -> None:
    _, images, labels = digits
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    report = run(digits)
    assert same(report, run(digits, images=torch.from_numpy(images), labels=torch.from_numpy(labels)))
    assert same(report, run(digits, images=mapped))


def test_pixels_are_divided_as_a_verifier_divides_them() -> None:
    seen: list[torch.Tensor] = []

    class Keep(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x.flatten(1)[:, :2]

    images = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    evaluate(Keep(), images, np.array([1]), THREAT, Suite("none", 1, "", ()), seed=0, soundness=False)
    np.testing.assert_array_equal(seen[0].numpy(), images.astype(np.float32) / np.float32(255))


def test_the_seed_decides_the_noise_and_nothing_else_does(digits: Any) -> None:
    suite = Suite("t", 1, "", (SuiteColumn("A", "pgd-sat", {"steps": 1, "step_size": "0.02eps"}),))
    threat = Threat("Linf", "0.4")
    first = run(digits, suite=suite, threat=threat)
    torch.manual_seed(1)
    assert same(first, run(digits, suite=suite, threat=threat))
    other = run(digits, suite=suite, threat=threat, seed=4)
    assert not np.array_equal(first.attacks["A"], other.attacks["A"])


def test_columns_of_one_attack_draw_their_own_noise(digits: Any) -> None:
    weak = {"steps": 1, "step_size": "0.02eps"}
    suite = Suite("t", 1, "", (SuiteColumn("A", "pgd-sat", weak), SuiteColumn("B", "pgd-sat", weak)))
    report = run(digits, suite=suite, threat=Threat("Linf", "0.4"))
    assert not np.array_equal(report.attacks["A"], report.attacks["B"])


def test_no_work_is_spent_on_images_wrong_before_the_attack(digits: Any) -> None:
    model, _, labels = digits
    wrong = (labels + 1) % 10
    counting = Counting(model)
    report = run(digits, model=counting, labels=wrong)
    attacked = int(report.clean.sum())
    # Clean pass: all; FGSM: natural, gradient, its verdict and ours; PGD-20 and CW_inf: 20 and 30 gradients and those.
    standing_after_natural = attacked * (4 + 23 + 33)
    assert attacked < 30
    assert counting.images == 120 + standing_after_natural


def test_a_cascade_attacks_only_what_stands_and_counts_cumulatively(digits: Any) -> None:
    model, *_ = digits
    alone, cascade = Counting(model), Counting(model)
    report = run(digits, model=cascade, mode="cascade")
    reference = run(digits, model=alone)
    assert cascade.images < alone.images
    bits = [report.clean, *report.attacks.values()]
    assert all(not (after & ~before).any() for before, after in pairwise(bits))
    np.testing.assert_array_equal(report.robust, bits[-1])
    np.testing.assert_array_equal(report.robust, reference.robust)
    assert report.to_json()["mode"] == "cascade"


@pytest.mark.parametrize("limit", [0, 1, 5, 8, 30, 100, 200])
def test_a_killed_evaluation_goes_on_and_ends_in_the_same_report(digits: Any, tmp_path: Path, limit: int) -> None:
    model, *_ = digits
    state = tmp_path / "state"
    undisturbed = Counting(model)
    expected = run(digits, model=undisturbed)
    killed = Counting(model, limit)
    with pytest.raises(KeyboardInterrupt):
        run(digits, model=killed, state=state, model_digest="m")
    resumed = Counting(model)
    report = run(digits, model=resumed, state=state, model_digest="m")
    assert same(report, expected)
    # Only the batch that was cut off is repeated.
    assert undisturbed.images <= killed.images + resumed.images <= undisturbed.images + 32 * 34
    assert list(tmp_path.iterdir()) == [state]


def test_a_finished_evaluation_is_not_run_again(digits: Any, tmp_path: Path) -> None:
    model, *_ = digits
    state = tmp_path / "deep" / "state"
    expected = run(digits, state=state, model_digest="m")
    again = Counting(model)
    assert same(run(digits, model=again, state=state, model_digest="m"), expected)
    assert again.forwards == 0


def changed_weights(digits: Any) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model.load_state_dict(digits[0].state_dict())
    with torch.no_grad():
        model[1].bias[0] += 1e-3
    return model


@pytest.mark.parametrize(
    "change",
    [
        lambda digits: {"seed": 4},
        lambda digits: {"batch_size": 31},
        lambda digits: {"threat": Threat("Linf", "0.051")},
        lambda digits: {"threat": Threat("L2", "0.05")},
        lambda digits: {"suite": get_suite("quick")},
        lambda digits: {"suite": replace(get_suite("default"), version=2)},
        lambda digits: {"mode": "cascade"},
        lambda digits: {"proposals": "bf16"},
        lambda digits: {"images": digits[1][::-1].copy()},
        lambda digits: {"images": digits[1][:100], "labels": digits[2][:100]},
        lambda digits: {"labels": (digits[2] + 1) % 10},
        lambda digits: {"model": changed_weights(digits)},
    ],
)
def test_a_state_of_other_inputs_is_refused_and_where_it_may_be_replaced_ignored(
    digits: Any, tmp_path: Path, change: Any
) -> None:
    state = tmp_path / "state"
    run(digits, state=state)
    changes = change(digits)
    with pytest.raises(UsageError, match="of another evaluation"):
        run(digits, state=state, **changes)
    assert same(run(digits, state=state, replace_state=True, **changes), run(digits, **changes))


@pytest.mark.parametrize("damage", [b"", None, b"PK"])
def test_a_damaged_batch_is_done_again_and_no_other(digits: Any, tmp_path: Path, damage: bytes | None) -> None:
    model, *_ = digits
    state = tmp_path / "state"
    expected = run(digits, state=state, model_digest="m")
    file = state / "02.00.00000032.npz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100] if damage is None else damage)
    counting = Counting(model)
    assert same(run(digits, model=counting, state=state, model_digest="m"), expected)
    assert counting.images == 32 * 23
    assert file.read_bytes() == whole


def test_a_state_that_cannot_be_written_is_one_sentence(digits: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot write"):
        run(digits, state=tmp_path / "file" / "state")


def test_what_is_no_state_of_ours_is_refused_and_left_alone(digits: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for place in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(UsageError, match=str(tmp_path)):
            run(digits, state=place)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_model_without_tensors_cannot_be_told_from_another(digits: Any, tmp_path: Path) -> None:
    class Bare(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return digits[0](x.flatten(1))

    with pytest.raises(ValueError, match="model_digest"):
        run(digits, model=Bare(), state=tmp_path / "s")
    assert run(digits, model=Bare()).samples == 120


@pytest.mark.parametrize("change", [{"normalization": Normalization((0.5,) * 3, (0.5,) * 3)}, {"activation": "silu"}])
def test_what_the_state_dict_does_not_hold_is_in_the_key(tmp_path: Path, change: Any) -> None:
    """The normalisation and the activation change the answers, and no tensor of the state dict tells of them."""
    spec = ModelSpec("dm-wideresnet-10-1", 4, image_size=8)
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
    keys = []
    for chosen in (spec, replace(spec, **change), spec):
        state = tmp_path / "state"
        evaluate(
            build_classifier(chosen, seed=0),
            images,
            np.zeros(6, np.int64),
            THREAT,
            Suite("none", 1, "", ()),
            seed=0,
            soundness=False,
            state=state,
            replace_state=True,
        )
        keys.append(json.loads((state / "key.json").read_text())["key"])
    assert keys[0] == keys[2] != keys[1]


def test_progress_counts_every_column_up_to_its_images(digits: Any) -> None:
    calls: list[tuple[str, int, int]] = []
    report = run(digits, on_progress=lambda *call: calls.append(call))
    for name, total in [("clean", 120), *((name, int(report.clean.sum())) for name in report.attacks)]:
        mine = [done for column, done, of in calls if column == name and of == total]
        assert mine == sorted(mine)
        assert mine[0] == 0
        assert mine[-1] == total
    assert {name for name, *_ in calls} == {"clean", *report.attacks}


def test_the_model_is_left_as_it_was_found(digits: Any) -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), digits[0], nn.Dropout(0.9)).train()
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    assert set(modes) == {True, False}
    run(digits, model=model)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((0, 1, 8, 8), np.uint8), "labels": np.zeros(0, np.int64)}, "no images"),
        ({"images": np.zeros((4, 1, 8, 8), np.uint8), "labels": np.zeros(3, np.int64)}, "4 images and labels"),
        ({"images": np.zeros((4, 1, 8, 8), np.float32), "labels": np.zeros(4, np.int64)}, "float32"),
        ({"images": np.zeros((4, 8, 8), np.uint8), "labels": np.zeros(4, np.int64)}, r"\(4, 8, 8\)"),
        ({"images": np.zeros((1, 1, 8, 8), np.uint8), "labels": np.array([-1])}, "-1"),
    ],
)
def test_data_that_cannot_be_evaluated_is_refused(digits: Any, changes: Any, message: str) -> None:
    with pytest.raises(UnreadableDataError, match=message) as refused:
        run(digits, **changes)
    assert refused.value.hint


def test_a_label_without_a_logit_is_a_class_mismatch(digits: Any) -> None:
    with pytest.raises(ClassMismatchError, match="10 classes, and a label is 10"):
        run(digits, labels=digits[2] + 1)


def test_alarms_are_looked_for_when_the_bits_are_known_and_change_none(digits: Any) -> None:
    masked = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with torch.no_grad():
        for mine, theirs in zip(masked.parameters(), digits[0].parameters(), strict=True):
            mine.copy_(1e5 * theirs)
    unexamined = run(digits, model=masked, suite=get_suite("quick"))
    report = run(digits, model=masked, suite=get_suite("quick"), soundness=True)
    assert unexamined.trustworthy
    assert not report.trustworthy
    assert all(alarm.name and alarm.detail and alarm.meaning for alarm in report.alarms)
    assert report.to_json()["alarms"] == [asdict(alarm) for alarm in report.alarms]
    assert report.to_json()["trustworthy"] is False
    assert same(unexamined, replace(report, alarms=()))


def test_autoattack_cost_grows_with_the_images_that_stand(digits: Any) -> None:
    model, images, _ = digits
    assert estimate_autoattack_seconds(model, images, 0) == 0
    counting = Counting(model)
    assert estimate_autoattack_seconds(counting, images, 50, batch_size=64) > 0
    assert counting.images <= 4 * 64


def test_every_setting_of_the_suite_reaches_the_attack(digits: Any) -> None:
    suite = get_suite("default")
    assert describe_suite(suite)["attacks"][1]["settings"]["step_size"] == "0.25eps"
    stronger = Suite("t", 1, "", (SuiteColumn("A", "pgd-sat", {"step_size": "0.25eps", "decide": "first"}),))
    assert run(digits, suite=stronger).accuracies["A"] <= run(digits).accuracies["PGD-20"]


CHECKPOINT = Path(__file__).parents[2] / "../shared/checkpoints/wrn16-4-nfgsm.pt"
PICTURES = Path(__file__).parents[2] / "data/cifar10-jpeg/test"


@pytest.mark.slow
@pytest.mark.skipif(not (CHECKPOINT.exists() and PICTURES.exists()), reason="needs the shared teacher and CIFAR-10")
def test_a_real_robust_teacher_on_real_pictures() -> None:
    folders = sorted(path for path in PICTURES.iterdir() if path.is_dir())
    files = [(path, label) for label, folder in enumerate(folders) for path in sorted(folder.iterdir())[:8]]
    images = np.stack([np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1) for path, _ in files])
    labels = np.array([label for _, label in files])
    model = load_checkpoint(CHECKPOINT, normalization="none").classifier
    report = evaluate(model, images, labels, Threat(), get_suite("quick"), seed=0, batch_size=40)
    assert report.clean_accuracy > 0.6
    assert 0.2 < report.robust_accuracy < report.clean_accuracy
    assert not report.alarms
