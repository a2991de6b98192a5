"""Runs a suite of attacks over images, and reports what came of each image; resumable after every batch."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.core.errors import UnreadableDataError
from compressor.core.reporting import OnProgress
from compressor.core.types import Threat
from compressor.evaluation.decisions import eval_logits
from compressor.evaluation.key import digest_of_model, evaluation_key
from compressor.evaluation.report import Alarm, Mode, Report
from compressor.evaluation.soundness import check_soundness
from compressor.evaluation.stages import CLEAN, Stages, on_device
from compressor.evaluation.store import EvaluationStore
from compressor.evaluation.suites import Suite
from compressor.frozen import FrozenPrecision, surrogate_of
from compressor.system.devices import full_float32
from compressor.system.process_group import ProcessGroup

__all__ = ["Alarm", "Report", "estimate_autoattack_seconds", "evaluate"]

AUTOATTACK_FORWARDS = 10_000
"""What AutoAttack costs for an image that it does not break, backward passes counted as two forward passes."""

_ALARMS = "alarms"
_SAMPLE = 8


@full_float32()
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
    replace_state: bool = False,
    model_digest: str | None = None,
    process_group: ProcessGroup = ProcessGroup(),  # noqa: B008 - a frozen value
    on_progress: OnProgress | None = None,
) -> Report:
    """Attack every image with every attack of a suite.

    An image that the model gets wrong unattacked is broken by every attack, and no work is spent on it. An attack that
    has stages runs them one after the other, each on the images robust so far. The noise of a batch is a function of
    the seed, the column, the stage and the batch's place among the images attacked: the same model, images, seed and
    batch size give the same report, stopped and resumed or not, by however many processes.

    Attacks differentiate a surrogate, and the model decides when an image is broken. Whatever an attack says, the
    model then judges every image that it returned, in one forward pass; one outside the ball never counts.

    An ensemble that is a reference runs as its authors publish it: on the model itself, every batch under the seed.

    All of it computes in full float32, also on a GPU (docs/decisions/0031-tf32.md).

    Args:
        model: logits ``[B, K]`` from float images in [0, 1]; on ``device`` already; left exactly as it was found.
        images: uint8 ``[N, C, H, W]``, perhaps memory-mapped.
        labels: integers ``[N]``.
        threat: the ball that the attacks search.
        suite: the attacks.
        seed: what every attack's noise is derived from.
        batch_size: images at once; also what a kill can lose.
        device: where the attacks run.
        mode: ``alone`` runs each attack on all images; ``cascade`` each on the images robust so far,
            which is cheaper, has the same worst case up to the attacks' noise, and makes each bit cumulative.
        proposals: what the surrogate computes in; the model decides in its own precision.
        surrogate: makes what attacks differentiate, from a few images on ``device``: a function of the model, which
            the state's key does not see. By default ``surrogate_of`` the model.
        soundness: whether to look for signs that the figures can't be trusted; see ``check_soundness`` for its cost.
        state: the folder where what is done is kept.
        replace_state: whether a state of other inputs may be removed for this one; else it is an error.
        model_digest: what tells this model from others in the state's key; by default a digest of its tensors and
            its structure.
        process_group: the processes that share the batches out among them; all of them get the same report.
        on_progress: called, in every process, before the first batch of a stage and after each, and last for ``alarms``
            as one image; may raise to stop.

    Returns:
        The bits, and everything computed from them.

    Raises:
        UnreadableDataError: no images, or images and labels of unlike number or kind.
        ClassMismatchError: a label that the model has no logit for.
        UsageError: the state is a file, or a folder that holds anything else, or is of other inputs.
        WriteError: the state cannot be written.
    """
    pictures, targets = _checked(images, labels)
    columns = [CLEAN, *(name for name, _ in suite.attacks)]
    key = ""
    if state is not None:
        key = evaluation_key(
            model_digest or digest_of_model(model), pictures, targets, threat, suite,
            seed=seed, batch_size=batch_size, mode=mode, proposals=proposals,
        )  # fmt: skip
    with process_group.main_first():
        store = EvaluationStore.enter(
            state, key, columns=columns, samples=len(pictures), image_shape=pictures.shape[1:], replace=replace_state
        )
    process_group.wait()  # nobody writes a batch before what does not belong there is gone
    progress = on_progress or (lambda name, done, total: None)

    @cache
    def attacked() -> nn.Module:
        """Made when first needed: a finished evaluation makes none."""
        x, _ = on_device(pictures[:_SAMPLE], targets[:_SAMPLE], device)
        return surrogate(x) if surrogate else surrogate_of(model, x, proposals)

    stages = Stages(
        model, attacked, pictures, targets, threat, seed, batch_size, device, store, process_group, progress
    )
    natural = stages.natural()
    done, before = {}, natural
    for number, (name, attack) in enumerate(suite.attacks, start=1):
        done[name] = stages.column(number, name, attack, before)
        before = done[name] if mode == "cascade" else natural

    report = Report(
        threat, str(suite), seed, mode,
        clean=natural.correct,
        attacks={name: column.correct for name, column in done.items()},
        labels=targets,
        predictions={CLEAN: natural.predictions, **{name: column.predictions for name, column in done.items()}},
        broken_by={name: (column.stages, column.broken_by) for name, column in done.items() if column.stages},
        outside={name: column.outside for name, column in done.items()},
    )  # fmt: skip
    if not soundness:
        return report
    progress(_ALARMS, 0, 1)
    alarms: tuple[Alarm, ...] = ()
    if process_group.is_main:
        alarms = check_soundness(
            model, attacked(), pictures, targets, suite, report, device=device, batch_size=batch_size
        )
    told = json.loads(process_group.from_main(json.dumps([asdict(alarm) for alarm in alarms])))
    progress(_ALARMS, 1, 1)
    return replace(report, alarms=tuple(Alarm(**alarm) for alarm in told))


@full_float32()
def estimate_autoattack_seconds(
    model: nn.Module,
    images: Tensor | NDArray[np.uint8],
    robust_so_far: int,
    *,
    batch_size: int = 128,
    device: torch.device | str = "cpu",
) -> float:
    """About how long AutoAttack will take: one forward pass is timed, and multiplied.

    Args:
        model: the classifier, on ``device``.
        images: uint8 ``[N, C, H, W]``; the first batch is used.
        robust_so_far: how many images AutoAttack is expected not to break; those it breaks cost little beside them.
        batch_size: images at once.
        device: where the attack will run.

    Returns:
        Seconds, right to within a factor of two or so.
    """
    pictures, targets = _checked(images[:batch_size], np.zeros(len(images[:batch_size]), dtype=np.int64))
    x, _ = on_device(pictures, targets, device)
    eval_logits(model, x)  # warms up: allocation and algorithm choice happen once
    begin = time.perf_counter()
    eval_logits(model, x).cpu()
    return (time.perf_counter() - begin) / len(pictures) * AUTOATTACK_FORWARDS * robust_so_far


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
