"""Kept perturbations: they line up with the picture however it comes back, and a run that uses them resumes to the bit.

The oracle is done by hand: pad the picture, perturb it there, then crop with torchvision and flip.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import functional as TF

from compressor.checkpoint import LoadedCheckpoint, load_checkpoint, save_checkpoint
from compressor.core.contracts import Progress, Split, SplitName
from compressor.core.errors import Interrupted
from compressor.core.reporting import SilentReporter
from compressor.core.types import ModelSpec, Threat
from compressor.models.classifier import build_classifier
from compressor.numerics.ascent import ascend, project
from compressor.numerics.augment import apply_variants, crop_padding, identity_variant, to_float_tensor, variant_count
from compressor.numerics.randomness import make_generator
from compressor.runs.recipe import Recipe, resolve
from compressor.runs.run import Run
from compressor.runs.run_folder import RunFolder
from compressor.system.interruption import StopRequest
from compressor.training.batches import Share
from compressor.training.configuration import RunConfig
from compressor.training.loop import Trainer
from compressor.training.session import train
from compressor.training.step.perturbations import Perturbations
from tests.support.training import Watcher

MODEL = "wideresnet-10-1"
SIZE = 16
EPS = Threat().radius
HALF_A_LEVEL = EPS / 127 / 2
ROUNDING = 1e-7
SIDE = SIZE + 2 * crop_padding(SIZE)


def deltas(*shape: int, seed: int = 0) -> Tensor:
    """Uniform in [-eps, eps]."""
    return EPS * (2 * torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) - 1)


def view(frame: Tensor, variant: int) -> Tensor:
    """A variant of a padded frame ``[C, S + 2p, S + 2p]``, by torchvision's own crop."""
    dy, dx = divmod(variant // 2, 2 * crop_padding(SIZE) + 1)
    cut: Tensor = TF.crop(frame, dy, dx, SIZE, SIZE)
    return cut.flip(-1) if variant % 2 else cut


def shown_by(variant: int) -> Tensor:
    """Which pixels of the frame a variant shows: 1 where it does, by where its crop lies."""
    mask = torch.zeros(1, SIDE, SIDE)
    dy, dx = divmod(variant // 2, 2 * crop_padding(SIZE) + 1)
    mask[:, dy : dy + SIZE, dx : dx + SIZE] = 1
    return mask


def store(images: int = 4) -> Perturbations:
    return Perturbations(images, 3, SIZE, EPS)


def test_what_was_never_kept_is_zero() -> None:
    kept = store()
    kept.keep(torch.tensor([2]), torch.tensor([7]), deltas(1, 3, SIZE, SIZE))
    others = kept.recall(torch.tensor([0, 1, 3]), torch.tensor([7, 7, 0]))
    assert others.dtype == torch.float32
    assert torch.equal(others, torch.zeros(3, 3, SIZE, SIZE))


@pytest.mark.parametrize("variant", range(variant_count(SIZE)))
def test_a_kept_perturbation_comes_back_to_within_half_a_level(variant: int) -> None:
    kept, delta = store(), deltas(2, 3, SIZE, SIZE)
    where, variants = torch.tensor([3, 1]), torch.tensor([variant, variant])
    kept.keep(where, variants, delta)
    assert (kept.recall(where, variants) - delta).abs().max() <= HALF_A_LEVEL + ROUNDING


def test_the_border_of_the_ball_and_zero_come_back_exactly_and_what_is_beyond_is_cut() -> None:
    kept, index, variants = store(1), torch.tensor([0]), torch.tensor([9])
    for value, expected in [(EPS, EPS), (-EPS, -EPS), (0.0, 0.0), (3 * EPS, EPS), (-3 * EPS, -EPS)]:
        kept.keep(index, variants, torch.full((1, 3, SIZE, SIZE), value))
        assert torch.allclose(kept.recall(index, variants), torch.tensor(expected), rtol=0, atol=ROUNDING)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, variant_count(SIZE) - 1), st.integers(0, variant_count(SIZE) - 1), st.integers(0, 2**16))
def test_kept_under_one_variant_and_recalled_under_another_it_lines_up_with_the_picture(
    before: int, after: int, seed: int
) -> None:
    picture = torch.randint(0, 256, (1, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(seed)).byte()
    padded = TF.pad(to_float_tensor(picture[0]), [crop_padding(SIZE)] * 4)
    perturbation = deltas(3, SIDE, SIDE, seed=seed)

    kept = store(1)
    index, was, now = torch.tensor([0]), torch.tensor([before]), torch.tensor([after])
    kept.keep(index, was, view(padded + perturbation, before)[None] - apply_variants(picture, was))
    got = apply_variants(picture, now) + kept.recall(index, now)

    expected = view(padded + perturbation * shown_by(before), after)
    assert (got[0] - expected).abs().max() <= HALF_A_LEVEL + ROUNDING


def test_a_later_perturbation_replaces_the_earlier_one_where_it_is_seen() -> None:
    kept, index = store(1), torch.tensor([0])
    top_left, bottom_right = 0, variant_count(SIZE) - 2
    first, second = deltas(3, SIDE, SIDE, seed=1), deltas(3, SIDE, SIDE, seed=2)
    kept.keep(index, torch.tensor([top_left]), view(first, top_left)[None])
    kept.keep(index, torch.tensor([bottom_right]), view(second, bottom_right)[None])
    seen = shown_by(bottom_right)
    frame = second * seen + first * shown_by(top_left) * (1 - seen)
    for variant in (top_left, bottom_right, identity_variant(SIZE), 5):
        got = kept.recall(index, torch.tensor([variant]))[0]
        assert (got - view(frame, variant)).abs().max() <= HALF_A_LEVEL + ROUNDING


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_recalled_start_lies_in_the_ball_once_projected(norm: str) -> None:
    threat = Threat(norm, "8/255" if norm == "Linf" else "0.5")  # type: ignore[arg-type]
    x = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).round(decimals=1)  # some 0, some 1
    kept, index = Perturbations(4, 3, SIZE, threat.radius), torch.arange(4)
    kept.keep(index, torch.tensor([1, 2, 3, 4]), 2 * threat.radius * deltas(4, 3, SIZE, SIZE).sign())
    start = project(x + kept.recall(index, torch.tensor([40, 30, 20, 10])), x, threat)
    assert start.min() >= 0
    assert start.max() <= 1
    assert not torch.equal(start, x)
    if norm == "Linf":
        assert bool(((start >= x - threat.radius) & (start <= x + threat.radius)).all())
    else:
        assert (start - x).flatten(1).norm(dim=1).max() <= threat.radius * (1 + 1e-6)


def test_rounds_of_one_step_reach_what_one_cold_step_cannot() -> None:
    # A linear objective's maximum over the ball is known: every pixel at the border, by the sign of its weight.
    weight = deltas(1, 3, SIZE, SIZE, seed=3).sign()
    x, threat = torch.full((1, 3, SIZE, SIZE), 0.5), Threat()
    kept, index, variants = store(1), torch.tensor([0]), torch.tensor([11])
    for _ in range(4):
        x_adv = ascend(
            lambda images, _: (images * weight).sum((1, 2, 3)), x, threat, make_generator(0), steps=1,
            step_size=EPS / 4, initial=project(x + kept.recall(index, variants), x, threat),
        )  # fmt: skip
        kept.keep(index, variants, x_adv - x)
    # Three of the four rounds began at a rounded place.
    assert (x_adv - (x + EPS * weight)).abs().max() <= 3 * HALF_A_LEVEL + ROUNDING


def test_the_state_survives_a_file() -> None:
    kept, index, variants = store(), torch.arange(4), torch.tensor([0, 17, 30, 49])
    kept.keep(index, variants, deltas(4, 3, SIZE, SIZE))
    file = io.BytesIO()
    torch.save(kept.state_dict(), file)
    file.seek(0)
    again = store()
    again.load_state_dict(torch.load(file, weights_only=True))
    other = variants.flip(0)
    assert torch.equal(again.recall(index, other), kept.recall(index, other))
    # What is restored is a copy: going on with one does not change the other.
    before = kept.recall(index, other)
    again.keep(index, other, torch.zeros(4, 3, SIZE, SIZE))
    assert torch.equal(kept.recall(index, other), before)


class Noise:
    """Random pictures, a few: what counts here is where the attack begins, not what is learnt."""

    name, image_size = "noise", SIZE
    class_names: tuple[str, ...] = ("a", "b", "c")

    def has(self, split: SplitName) -> bool:
        return split != "validation"

    def load(self, split: SplitName) -> Split:
        images = np.random.default_rng(0).integers(0, 256, (69, 3, SIZE, SIZE), dtype=np.uint8)
        return Split(images, np.arange(69) % 3)


def recipe(method: str = "rslad", **flags: object) -> Recipe:
    common = {
        "epochs": 3, "batch_size": 16, "image_size": SIZE, "attack_steps": 2, "attack_step_size": 0.5,
        "validation_samples": 6, "selection_steps": 1, "precision": "fp32", "attack_warm_start": True,
    }  # fmt: skip
    return resolve(method, MODEL, None, {**common, **flags})


def run_training(
    recipe: Recipe, folder: Path, *, resume: bool = False,
    reporter: SilentReporter | None = None, stop: StopRequest | None = None,
) -> Run:  # fmt: skip
    teacher = None
    if recipe.method == "rslad":
        teacher = a_teacher(folder.parent / "teacher.safetensors")
    request = RunConfig(recipe, Noise(), RunFolder(folder), torch.device("cpu"), resume)
    return train(request, teacher, reporter=reporter or SilentReporter(), stop=stop or StopRequest())


def a_teacher(path: Path) -> LoadedCheckpoint:
    if not path.exists():
        save_checkpoint(path, build_classifier(ModelSpec(MODEL, 3, SIZE), seed=5), {})
    return load_checkpoint(path)


def weights(result: Run) -> dict[str, Tensor]:
    return dict(load_checkpoint(result.last).classifier.state_dict())


@pytest.mark.parametrize("after", [2, 4, 6, 11])
def test_stopped_and_resumed_gives_the_same_bytes(after: int, tmp_path: Path) -> None:
    # Four steps an epoch: within the cold epoch, at its end, within the first warm one, and just before the end.
    whole = run_training(recipe(), tmp_path / "whole")
    stop = StopRequest()
    with pytest.raises(Interrupted):
        run_training(recipe(), tmp_path / "parts", reporter=Watcher(stop, after), stop=stop)
    parts = run_training(recipe(), tmp_path / "parts", resume=True)
    assert parts.metrics == whole.metrics
    assert parts.last.read_bytes() == whole.last.read_bytes()
    assert parts.best.read_bytes() == whole.best.read_bytes()


@pytest.mark.parametrize("method", ["rslad", "sat"])
def test_the_first_epoch_is_the_cold_one_and_the_second_is_not(method: str, tmp_path: Path) -> None:
    for epochs, equal in [(1, True), (2, False)]:
        warm = weights(run_training(recipe(method, epochs=epochs), tmp_path / f"warm-{epochs}"))
        cold_recipe = replace(recipe(method, epochs=epochs), attack_warm_start=False)
        cold = weights(run_training(cold_recipe, tmp_path / f"cold-{epochs}"))
        assert all(torch.equal(warm[name], cold[name]) for name in warm) is equal


@dataclass(frozen=True)
class Seen:
    """One attack: where it began, on what, and where it ended."""

    epoch: int
    share: Share
    start: Tensor
    x_adv: Tensor


@pytest.fixture
def attacks() -> Iterator[list[Seen]]:
    """Every attack of the runs inside the test, recorded with the place that it began at."""
    seen: list[Seen] = []
    starts: list[Tensor] = []
    attack, start = Trainer._attack, Trainer._start

    def recorded_start(self: Trainer, share: Share, progress: Progress) -> Tensor:
        starts.append(start(self, share, progress).clone())
        return starts[-1].clone()

    def recorded_attack(self: Trainer, share: Share, progress: Progress) -> Tensor:
        x_adv = attack(self, share, progress)
        seen.append(Seen(progress.epoch, share, starts.pop(), x_adv.clone()))
        return x_adv

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_start", recorded_start)
        patch.setattr(Trainer, "_attack", recorded_attack)
        yield seen


@pytest.mark.parametrize("augmentation", ["crop-flip", "crop", "none"])
def test_each_attack_begins_where_that_images_last_one_ended(
    augmentation: str, tmp_path: Path, attacks: list[Seen]
) -> None:
    run_training(recipe("sat", augmentation=augmentation, accumulation=2), tmp_path / "run")
    frames: dict[int, Tensor] = {}
    for seen in attacks:
        rows = zip(seen.share.index.tolist(), seen.share.variants.tolist(), strict=True)
        for i, (image, variant) in enumerate(rows):
            x, frame = seen.share.batch.x[i], frames.setdefault(image, torch.zeros(3, SIDE, SIDE))
            if seen.epoch > 0:
                expected = (x + view(frame, variant)).clamp(0, 1)
                assert (seen.start[i] - expected).abs().max() <= HALF_A_LEVEL + ROUNDING
                # Exactly: rounding to levels may lead out of the ball and out of [0, 1], by half a level.
                assert torch.equal(seen.start[i], seen.start[i].clamp(x - EPS, x + EPS).clamp(0, 1))
            delta = seen.x_adv[i] - x
            upright = TF.hflip(delta) if variant % 2 else delta
            dy, dx = divmod(variant // 2, 2 * crop_padding(SIZE) + 1)
            frame[:, dy : dy + SIZE, dx : dx + SIZE] = upright
    images = {image for seen in attacks for image in seen.share.index.tolist()}
    assert len(images) == 63
    assert max(seen.epoch for seen in attacks) == 2
