"""Training as a whole, on a few images and a tiny network: it learns, it resumes to the bit, it stops when told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from compressor.checkpoint import LoadedCheckpoint, load_checkpoint, save_checkpoint
from compressor.core.contracts import Progress
from compressor.core.errors import DivergedError, Interrupted, RecipeChangedError, UnknownNameError, UsageError
from compressor.core.reporting import SilentReporter
from compressor.core.types import ModelSpec
from compressor.models.classifier import build_classifier
from compressor.runs.recipe import Recipe, resolve
from compressor.runs.run import Run
from compressor.runs.run_folder import RunFolder
from compressor.system.interruption import StopRequest
from compressor.training.batches import Share
from compressor.training.configuration import RunConfig
from compressor.training.loop import Trainer
from compressor.training.session import train
from tests.support.training import Stripes, Watcher

MODEL = "wideresnet-10-1"
CPU = torch.device("cpu")


@pytest.fixture
def teacher(tmp_path: Path) -> LoadedCheckpoint:
    path = tmp_path / "teacher.safetensors"
    save_checkpoint(path, build_classifier(ModelSpec(MODEL, 3, 16), seed=5), {})
    return load_checkpoint(path)


def recipe(method: str, **flags: object) -> Recipe:
    common = {
        "epochs": 2,
        "batch_size": 16,
        "image_size": 16,
        "attack_steps": 2,
        "validation_samples": 9,
        "precision": "fp32",
    }
    return resolve(method, MODEL, None, {**common, "selection_steps": 2, **flags})


def run_training(
    settings: Recipe, folder: Path, teacher: LoadedCheckpoint | None = None, *, resume: bool = False,
    reporter: SilentReporter | None = None, stop: StopRequest | None = None,
) -> Run:  # fmt: skip
    request = RunConfig(settings, Stripes(96), RunFolder(folder), CPU, resume)
    return train(request, teacher, reporter=reporter or SilentReporter(), stop=stop or StopRequest())


@pytest.mark.parametrize("method", ["sat", "rslad"])
def test_what_is_recorded_is_what_was_done(method: str, tmp_path: Path, teacher: LoadedCheckpoint) -> None:
    given = teacher if method == "rslad" else None
    settings = recipe(method)
    result = run_training(settings, tmp_path / "run", given)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(result.metrics)
    best, last = load_checkpoint(result.best), load_checkpoint(result.last)
    assert last.metadata["epoch"] == 2
    assert best.metadata["epoch"] == result.best_epoch
    assert best.metadata["recipe"] == settings.to_dict()
    assert best.metadata["parent_sha256"] == (given.sha256 if given else None)
    assert best.spec == ModelSpec(MODEL, 3, 16)


def test_natural_training_learns_the_stripes(tmp_path: Path) -> None:
    result = run_training(recipe("natural", epochs=6, learning_rate=0.05, augmentation="none"), tmp_path / "run")
    assert result.metrics[-1]["validation"]["clean_accuracy"] > 0.9


@pytest.mark.parametrize("after", [1, 4, 6, 8])
def test_stopped_and_resumed_gives_the_same_bytes(after: int, tmp_path: Path, teacher: LoadedCheckpoint) -> None:
    settings = recipe("rslad")
    whole = run_training(settings, tmp_path / "whole", teacher)
    stop = StopRequest()
    with pytest.raises(Interrupted) as caught:
        run_training(settings, tmp_path / "parts", teacher, reporter=Watcher(stop, after), stop=stop)
    assert caught.value.exit_code == 143
    parts = run_training(settings, tmp_path / "parts", teacher, resume=True)

    assert parts.metrics == whole.metrics
    assert parts.last.read_bytes() == whole.last.read_bytes()
    assert parts.best.read_bytes() == whole.best.read_bytes()


def test_a_cache_that_others_fill_meanwhile_does_not_change_a_resumed_run(
    tmp_path: Path, teacher: LoadedCheckpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe("rslad", epochs=3)
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(tmp_path / "one"))
    whole = run_training(settings, tmp_path / "whole", teacher)
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(tmp_path / "two"))
    stop = StopRequest()
    with pytest.raises(Interrupted):
        run_training(settings, tmp_path / "parts", teacher, reporter=Watcher(stop, after=8), stop=stop)
    run_training(recipe("rslad", epochs=3, learning_rate=0.01), tmp_path / "other", teacher)
    parts = run_training(settings, tmp_path / "parts", teacher, resume=True)
    assert parts.last.read_bytes() == whole.last.read_bytes()
    assert parts.metrics == whole.metrics


def test_the_label_cache_changes_no_bit_and_serves_the_next_run(tmp_path: Path, teacher: LoadedCheckpoint) -> None:
    settings, watcher = recipe("rslad"), Watcher()
    request = RunConfig(settings, Stripes(96), RunFolder(tmp_path / "off"), CPU, label_cache_limit=0)
    off = train(request, teacher, reporter=SilentReporter(), stop=StopRequest())
    cold = run_training(settings, tmp_path / "cold", teacher)
    warm = run_training(settings, tmp_path / "warm", teacher, reporter=watcher)
    assert off.last.read_bytes() == cold.last.read_bytes() == warm.last.read_bytes()
    assert any("gave 100% of" in note for note in watcher.notes)


def test_a_run_that_had_no_cache_goes_on_exactly_with_one(tmp_path: Path, teacher: LoadedCheckpoint) -> None:
    settings, stop = recipe("rslad"), StopRequest()
    whole = run_training(settings, tmp_path / "whole", teacher)
    request = RunConfig(settings, Stripes(96), RunFolder(tmp_path / "parts"), CPU, label_cache_limit=0)
    with pytest.raises(Interrupted):
        train(request, teacher, reporter=Watcher(stop, after=4), stop=stop)
    parts = run_training(settings, tmp_path / "parts", teacher, resume=True)
    assert parts.last.read_bytes() == whole.last.read_bytes()


@pytest.mark.parametrize(
    "settings",
    [{"accumulation": 2}, {"outer_precision": "fp16"}, {"attack_warm_start": True}, {"frozen_twin": False}],
    ids=lambda settings: next(iter(settings)),
)
def test_every_option_resumes_to_the_bit(settings: dict[str, object], tmp_path: Path) -> None:
    chosen, stop = recipe("sat", **settings), StopRequest()
    whole = run_training(chosen, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run_training(chosen, tmp_path / "parts", reporter=Watcher(stop, after=7), stop=stop)
    parts = run_training(chosen, tmp_path / "parts", resume=True)
    assert parts.last.read_bytes() == whole.last.read_bytes()


def test_the_scale_of_an_fp16_loss_is_part_of_the_state(tmp_path: Path) -> None:
    run_training(recipe("sat", outer_precision="fp16"), tmp_path / "half")
    saved = RunFolder(tmp_path / "half").load_state()
    assert saved is not None
    assert saved["scaler"]["scale"] > 1


def test_the_twin_trains_what_the_model_itself_would(tmp_path: Path) -> None:
    twin = run_training(recipe("sat", epochs=1), tmp_path / "twin").metrics[0]["loss"]["total"]
    itself = run_training(recipe("sat", epochs=1, frozen_twin=False), tmp_path / "itself").metrics[0]["loss"]["total"]
    assert twin == pytest.approx(itself, rel=1e-2)  # signs of vanishing gradients may differ by rounding
    choices = json.loads((tmp_path / "itself" / "choices.json").read_text())
    assert choices == {"twin": None, "teacher": None}


def test_choices_are_kept_on_resume_and_told_by_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = iter(["bf16", "fp32"])
    monkeypatch.setattr("compressor.runs.choices.choose_precision", lambda *_, **__: next(measured))
    settings, stop = recipe("sat", precision="auto"), StopRequest()
    with pytest.raises(Interrupted):
        run_training(settings, tmp_path / "run", reporter=Watcher(stop, after=2), stop=stop)
    result = run_training(settings, tmp_path / "run", resume=True)
    assert load_checkpoint(result.last).metadata["choices"] == {"twin": "bf16", "teacher": None}
    assert next(measured) == "fp32"  # nobody measured again


def test_a_profile_says_where_the_time_went(tmp_path: Path, teacher: LoadedCheckpoint) -> None:
    class Details(Watcher):
        details: list[str] = []  # noqa: RUF012 - of this test alone

        def advance(self, done: int, total: int, detail: str = "") -> None:
            self.details.append(detail)

    request = RunConfig(recipe("rslad"), Stripes(96), RunFolder(tmp_path / "run"), CPU, profile=True)
    train(request, teacher, reporter=Details(), stop=StopRequest())
    found = json.loads((tmp_path / "run" / "profile.json").read_text())
    epochs = found["epochs"]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    for part, seconds in found["seconds"].items():
        assert seconds == pytest.approx(sum(epoch["parts"][part] for epoch in epochs))
    assert min(found["seconds"].values()) > 0
    assert all(sum(epoch["parts"].values()) <= epoch["seconds"] for epoch in epochs)
    assert all("attack" in detail for detail in Details.details)


def test_synchronised_batchnorm_without_a_gpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="between GPUs only"):
        run_training(recipe("sat", sync_batchnorm=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_batch_that_cannot_be_parted_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't be parted"):
        run_training(recipe("sat", accumulation=3), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_compiled_training_computes_the_same(tmp_path: Path) -> None:
    plain = run_training(recipe("natural", epochs=1), tmp_path / "plain").metrics[0]["loss"]["total"]
    compiled = run_training(recipe("natural", epochs=1, compile=True), tmp_path / "compiled")
    assert compiled.metrics[0]["loss"]["total"] == pytest.approx(plain, rel=1e-3)
    assert load_checkpoint(compiled.last).spec == ModelSpec(MODEL, 3, 16)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = run_training(recipe("natural"), tmp_path / "run")
    watcher = Watcher()
    second = run_training(recipe("natural"), tmp_path / "run", resume=True, reporter=watcher)
    assert second == first
    assert watcher.steps == 0
    assert any("done already" in note for note in watcher.notes)


def test_a_resumed_run_refuses_another_recipe(tmp_path: Path) -> None:
    run_training(recipe("natural"), tmp_path / "run")
    with pytest.raises(RecipeChangedError, match=r"learning_rate: 0\.1 -> 0\.2"):
        run_training(recipe("natural", learning_rate=0.2), tmp_path / "run", resume=True)


def test_seeds_differ_and_repeat(tmp_path: Path) -> None:
    zero = run_training(recipe("natural"), tmp_path / "0").last.read_bytes()
    again = run_training(recipe("natural"), tmp_path / "0b").last.read_bytes()
    one = run_training(recipe("natural", seed=1), tmp_path / "1").last.read_bytes()
    assert zero == again
    assert zero != one


def test_a_diverging_loss_is_an_error_that_keeps_what_there_was(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"the loss became (nan|inf) in epoch \d, step \d") as caught:
        run_training(recipe("natural", learning_rate=1e30), tmp_path / "run")
    assert caught.value.exit_code == 1
    assert "learning rate" in caught.value.hint


def test_nothing_is_written_for_a_request_that_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a teacher"):
        run_training(recipe("rslad"), tmp_path / "run")
    with pytest.raises(UnknownNameError):
        run_training(resolve("natural", "mobilenet", None, {"image_size": 16}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_validation_split_is_at_most_a_tenth_however_many_samples_are_asked_for(tmp_path: Path) -> None:
    result = run_training(recipe("natural", epochs=1, train_samples=10_000, validation_samples=50), tmp_path / "run")
    assert result.metrics[0]["validation"]["samples"] == 9


def test_bf16_trains_the_outer_step_alone(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []
    original = Trainer._attack

    def attack(self: Trainer, share: Share, progress: Progress) -> torch.Tensor:
        seen.append(self.student(share.batch.x).dtype)
        return original(self, share, progress)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_attack", attack)
        half = run_training(recipe("sat", epochs=1, outer_precision="bf16"), tmp_path / "half")
    full = run_training(recipe("sat", epochs=1), tmp_path / "full")
    assert set(seen) == {torch.float32}
    assert half.metrics[0]["loss"]["total"] == pytest.approx(full.metrics[0]["loss"]["total"], rel=0.05)
    assert half.last.read_bytes() != full.last.read_bytes()


def test_an_untrained_teacher_draws_a_warning_before_training(tmp_path: Path, teacher: LoadedCheckpoint) -> None:
    watcher = Watcher()
    run_training(recipe("rslad", epochs=1), tmp_path / "run", teacher, reporter=watcher)
    assert any("near chance" in warning for warning in watcher.warnings)


def test_the_teacher_is_left_as_it_was(tmp_path: Path, teacher: LoadedCheckpoint) -> None:
    before = {name: tensor.clone() for name, tensor in teacher.classifier.state_dict().items()}
    run_training(recipe("rslad", epochs=1), tmp_path / "run", teacher)
    after = teacher.classifier.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
