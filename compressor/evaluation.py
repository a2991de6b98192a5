"""Runs a suite of attacks over images, stage by stage, and keeps what came of each; resumable after every batch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.contracts import Attack, Ensemble
from compressor.errors import UnreadableDataError
from compressor.evaluation_key import digest_of_model, evaluation_key
from compressor.evaluation_report import Alarm, Bits, Classes, Mode, Report
from compressor.evaluation_store import EvaluationStore, Outcome, Place
from compressor.frozen import FrozenPrecision, chunk_of, surrogate_of
from compressor.judgement import answers, judge
from compressor.randomness import make_generator
from compressor.soundness import check_soundness
from compressor.suites import Suite
from compressor.team import Team
from compressor.types import Threat

__all__ = ["Alarm", "Report", "estimate_autoattack_seconds", "evaluate"]

OnProgress = Callable[[str, int, int], None]
"""Called with what is being run, images done, and images in all: ``clean``, a column's name, ``AA: square`` for one of
its stages, and last ``alarms``, which counts as one image."""

AUTOATTACK_FORWARDS = 10_000
"""What AutoAttack costs for an image that it does not break, backward passes counted as two forward passes."""

_CLEAN = "clean"
_ALARMS = "alarms"
_SAMPLE = 8
_UNKNOWN = -2  # below every answer, so that the largest over all processes is the answer


def evaluate(
    model: nn.Module,
    images: Tensor | NDArray[np.uint8],
    labels: Tensor | NDArray[np.int64],
    threat: Threat,
    suite: Suite,
    *,
    seed: int,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
    mode: Mode = "alone",
    proposals: FrozenPrecision = "fp32",
    surrogate: Callable[[Tensor], nn.Module] | None = None,
    soundness: bool = True,
    state: Path | None = None,
    model_digest: str | None = None,
    team: Team = Team(),  # noqa: B008 - a frozen value
    on_progress: OnProgress | None = None,
) -> Report:
    """Attack every image with every attack of a suite.

    An image that the model gets wrong unattacked is broken by every attack, and no work is spent on it. An attack that
    has stages runs them one after the other, each on what stands. The noise of a batch is a function of the seed, the
    column, the stage and the batch's place among the images attacked: the same model, images, seed and batch size give
    the same report, stopped and resumed or not, by however many processes.

    Attacks differentiate a surrogate, and the model decides when an image is broken. Whatever an attack says, the
    model then judges every image that it returned, in one forward pass; one outside the ball never counts.

    An ensemble that is a reference runs as its authors publish it: on the model itself, every batch under the seed.

    Args:
        model: logits ``[B, K]`` from float images in [0, 1]; on ``device`` already; left exactly as it was found.
        images: uint8 ``[N, C, H, W]``, perhaps memory-mapped.
        labels: integers ``[N]``.
        threat: the ball that the attacks search.
        suite: the attacks.
        seed: what every attack's noise is derived from.
        batch_size: images at once; also what a kill can lose.
        device: where the attacks run.
        mode: ``alone`` runs each attack on all images; ``cascade`` each on what the ones before it left standing,
            which is cheaper, has the same worst case up to the attacks' noise, and makes each bit cumulative.
        proposals: what the surrogate computes in; the model decides in its own precision.
        surrogate: makes what attacks differentiate, from a few images on ``device``: a function of the model, which
            the state's key does not see. By default ``surrogate_of`` the model.
        soundness: whether to look for signs that the figures can't be trusted; see ``check_soundness`` for its cost.
        state: the folder where what is done is kept; one that belongs to other inputs is started anew.
        model_digest: what tells this model from others in the state's key; by default a digest of its tensors and
            its structure.
        team: the processes that share the batches out among them; all of them get the same report.
        on_progress: called, in every process, before the first batch of a stage and after each; may raise to stop.

    Returns:
        The bits, and everything computed from them.

    Raises:
        UnreadableDataError: no images, or images and labels of unlike number or kind.
        ClassMismatchError: a label that the model has no logit for.
        UsageError: the state is a file, or a folder that holds anything else.
        WriteError: the state cannot be written.
    """
    pictures, targets = _checked(images, labels)
    columns = [_CLEAN, *(name for name, _ in suite.attacks)]
    key = ""
    if state is not None:
        key = evaluation_key(
            model_digest or digest_of_model(model), pictures, targets, threat, suite,
            seed=seed, batch_size=batch_size, mode=mode, proposals=proposals,
        )  # fmt: skip
    store = _enter(state, key, columns, pictures, team)
    progress = on_progress or (lambda name, done, total: None)

    @cache
    def attacked() -> nn.Module:
        """Made when first needed: a finished evaluation makes none."""
        x, _ = _on_device(pictures[:_SAMPLE], targets[:_SAMPLE], device)
        return surrogate(x) if surrogate else surrogate_of(model, x, proposals)

    def judge_natural(x: Tensor, y: Tensor, _: int) -> Outcome:
        outcome = judge(model, x, y, x, threat, chunk_of(attacked()))
        return replace(outcome, adversarial=outcome.adversarial[:0])

    work = _Work(pictures, targets, batch_size, device, store, team, progress)
    found = work.run(Place(0, 0, 0), _CLEAN, np.arange(len(targets)), judge_natural)
    said, unbroken = found.predictions.astype(np.int64), np.full(len(targets), -1)
    natural = _Column(found.broken == 0, said, (), unbroken, 0)
    done, before = {}, natural
    for number, (name, attack) in enumerate(suite.attacks, start=1):
        breaker = partial(_breaker, model, attacked, threat, seed, name)
        done[name] = _run_column(work, number, name, attack, before, breaker)
        before = done[name] if mode == "cascade" else natural

    report = Report(
        threat, str(suite), seed, mode,
        clean=natural.right,
        attacks={name: column.right for name, column in done.items()},
        labels=targets,
        predictions={_CLEAN: natural.predictions, **{name: column.predictions for name, column in done.items()}},
        broken_by={name: (column.stages, column.broken_by) for name, column in done.items() if column.stages},
        outside={name: column.outside for name, column in done.items()},
    )  # fmt: skip
    if not soundness:
        return report
    progress(_ALARMS, 0, 1)
    alarms: tuple[Alarm, ...] = ()
    if team.is_main:
        alarms = check_soundness(
            model, attacked(), pictures, targets, threat, suite, report,
            seed=seed, device=device, batch_size=batch_size,
        )  # fmt: skip
    told = json.loads(team.from_main(json.dumps([asdict(alarm) for alarm in alarms])))
    progress(_ALARMS, 1, 1)
    return replace(report, alarms=tuple(Alarm(**alarm) for alarm in told))


def estimate_autoattack_seconds(
    model: nn.Module,
    images: Tensor | NDArray[np.uint8],
    standing: int,
    *,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
) -> float:
    """About how long AutoAttack will take: one forward pass is timed, and multiplied.

    Args:
        model: the classifier, on ``device``.
        images: uint8 ``[N, C, H, W]``; the first batch is used.
        standing: how many images AutoAttack is expected not to break; those it breaks cost little beside them.
        batch_size: images at once.
        device: where the attack will run.

    Returns:
        Seconds, right to within a factor of two or so.
    """
    pictures, targets = _checked(images[:batch_size], np.zeros(len(images[:batch_size]), dtype=np.int64))
    x, _ = _on_device(pictures, targets, device)
    answers(model, x)  # warms up: allocation and algorithm choice happen once
    begin = time.perf_counter()
    answers(model, x).cpu()
    return (time.perf_counter() - begin) / len(pictures) * AUTOATTACK_FORWARDS * standing


class _Found(NamedTuple):
    """What came of the images of a stage, each int32 ``[m]``: the class named, and 1 where broken or outside."""

    predictions: NDArray[np.int32]
    broken: NDArray[np.int32]
    outside: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class _Column:
    """A column that is done; see ``Report`` for its arrays, all ``[N]``. ``stages`` is empty where it has none."""

    right: Bits
    predictions: Classes
    stages: tuple[str, ...]
    broken_by: Classes
    outside: int


_Judged = Callable[[Tensor, Tensor, int], Outcome]
"""From a batch of images, their labels and the batch's place to what came of it."""


@dataclass(frozen=True, eq=False)
class _Work:
    """Takes images through a stage, batch by batch: what is known is not done again, and processes take turns."""

    pictures: NDArray[np.uint8]
    targets: NDArray[np.int64]
    batch_size: int
    device: torch.device | str
    store: EvaluationStore
    team: Team
    progress: OnProgress

    def run(self, place: Place, title: str, index: NDArray[np.intp], judged: _Judged) -> _Found:
        """What came of the images at the positions ``index``; every process gets all of it."""
        found = np.full((len(_Found._fields), len(index)), _UNKNOWN, dtype=np.int32)
        starts = range(0, len(index), self.batch_size)
        for start in starts:
            kept = self.store.load(place._replace(start=start), index[start : start + self.batch_size])
            if kept is not None:
                found[:, start : start + self.batch_size] = kept.predictions, kept.broken, kept.outside
        self.progress(title, _known(found), len(index))
        for start in starts[self.team.rank :: self.team.size]:
            part = slice(start, min(start + self.batch_size, len(index)))
            if (found[0, part] != _UNKNOWN).all():
                continue
            x, y = _on_device(self.pictures[index[part]], self.targets[index[part]], self.device)
            outcome = judged(x, y, start)
            self.store.save(place._replace(start=start), index[part], outcome)
            found[:, part] = outcome.predictions, outcome.broken, outcome.outside
            self.progress(title, max(part.stop, _known(found)), len(index))
        if self.team.size > 1 and len(index) > 0:
            self.team.maximum_(found)
            self.progress(title, len(index), len(index))
        return _Found(*found)


def _run_column(
    work: _Work,
    number: int,
    name: str,
    attack: Attack,
    before: _Column,
    breaker: Callable[[Attack, bool, str], _Judged],
) -> _Column:
    """Run an attack, or its stages, each on what stands."""
    stages: tuple[tuple[str, Attack], ...] = (("", attack),)
    is_reference = False
    if isinstance(attack, Ensemble):
        stages, is_reference = attack.stages, attack.is_reference
    right, predictions, outside = before.right.copy(), before.predictions.copy(), 0
    broken_by = np.full(len(right), -1)
    for stage, (stage_name, part) in enumerate(stages):
        index = np.flatnonzero(right)
        title = f"{name}: {stage_name}" if stage_name else name
        found = work.run(Place(number, stage, 0), title, index, breaker(part, is_reference, stage_name))
        broken = index[found.broken == 1]
        right[broken], broken_by[broken] = False, stage
        predictions[index] = found.predictions
        outside += int(found.outside.sum())
    names = tuple(stage_name for stage_name, _ in stages if stage_name)
    return _Column(right, predictions, names, broken_by, outside)


def _breaker(
    model: nn.Module,
    attacked: Callable[[], nn.Module],
    threat: Threat,
    seed: int,
    column: str,
    attack: Attack,
    is_reference: bool,
    stage: str,
) -> _Judged:
    """What runs an attack on a batch and lets the model judge what it returned."""

    def judged(x: Tensor, y: Tensor, start: int) -> Outcome:
        target = model if is_reference else attacked()
        place = (stage, start) if stage else (start,)
        generator = make_generator(seed, "attack", column, *place)
        if is_reference:
            generator = torch.Generator().manual_seed(seed)
        found = attack(target, x, y, threat, generator)
        return judge(model, x, y, found.x_adv, threat, chunk_of(target))

    return judged


def _enter(
    state: Path | None, key: str, columns: list[str], pictures: NDArray[np.uint8], team: Team
) -> EvaluationStore:
    """Open the state in every process; nobody writes a batch before what does not belong there is gone."""
    with team.main_first():
        store = EvaluationStore.enter(
            state, key, columns=columns, samples=len(pictures), image_shape=pictures.shape[1:]
        )
    team.wait()
    return store


def _known(found: NDArray[np.int32]) -> int:
    return int((found[0] != _UNKNOWN).sum())


def _checked(
    images: Tensor | NDArray[np.uint8], labels: Tensor | NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    pictures = images.cpu().numpy() if isinstance(images, Tensor) else images
    targets = (labels.cpu().numpy() if isinstance(labels, Tensor) else labels).astype(np.int64)
    hint = "Evaluate at least one picture, with one label for each."
    if pictures.dtype != np.uint8 or pictures.ndim != 4:
        raise UnreadableDataError(f"the images are {pictures.dtype} {pictures.shape}, not uint8 [N, C, H, W].", hint)
    if targets.shape != (len(pictures),):
        raise UnreadableDataError(f"there are {len(pictures)} images and labels of shape {targets.shape}.", hint)
    if len(pictures) == 0:
        raise UnreadableDataError("there are no images to evaluate.", hint)
    if targets.min() < 0:
        raise UnreadableDataError(f"a label is {targets.min()}, below 0.", hint)
    return pictures, targets


def _on_device(
    pictures: NDArray[np.uint8], targets: NDArray[np.int64], device: torch.device | str
) -> tuple[Tensor, Tensor]:
    # Divided on the host: CUDA multiplies by a rounded 1/255, and a verifier's images would differ in the last bit.
    x = torch.from_numpy(pictures.astype(np.float32) / np.float32(255))
    return x.to(device), torch.from_numpy(targets).to(device)
