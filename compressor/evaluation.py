"""Runs a suite of attacks over images and keeps one bit for each image and attack; resumable after every batch."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.classifier import Classifier
from compressor.contracts import Attack
from compressor.errors import ClassMismatchError, UnreadableDataError
from compressor.evaluation_report import Alarm, Bits, Mode, Report
from compressor.evaluation_state import RIGHT, UNKNOWN, WRONG, EvaluationState
from compressor.files import canonical_json, sha256_bytes
from compressor.frozen import chunk_of, in_chunks, twin_or_itself
from compressor.losses import is_wrong
from compressor.modes import module_mode
from compressor.randomness import make_generator
from compressor.statistics import wilson_interval
from compressor.suites import Suite, describe
from compressor.team import Team
from compressor.types import Threat

LOG = logging.getLogger("compressor.evaluation")

__all__ = ["Alarm", "Report", "estimate_autoattack_seconds", "evaluate"]

OnProgress = Callable[[str, int, int], None]
"""Called with a column's name (``clean`` for the natural images), images done, and images in all."""

AUTOATTACK_FORWARDS = 10_000
"""What AutoAttack costs for an image that it does not break, backward passes counted as two forward passes."""

_CLEAN = "clean"
# What is computed has changed since version 1, where attacks differentiated the model itself.
_NUMERICS = 2
_SAMPLE = 8
_STEPS_ALLOWANCE = 0.005


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
    state: Path | None = None,
    model_digest: str | None = None,
    team: Team = Team(),  # noqa: B008 - a frozen value
    on_progress: OnProgress | None = None,
) -> Report:
    """Attack every image with every attack of a suite.

    An image that the model gets wrong unattacked is broken by every attack, and no work is spent on it. The noise of a
    batch is a function of the seed, the column and the batch's place among the images attacked: the same model,
    images, seed and batch size give the same report, stopped and resumed or not, by however many processes.

    Attacks differentiate the model's frozen twin, whose logits differ from the model's by rounding. The model itself
    judges every image that they find; where the twin alone has fallen, the attack is run again on the model.

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
        state: where the bits so far are kept; one that belongs to other inputs is ignored and overwritten.
        model_digest: what tells this model from others in the state's key; by default a digest of its tensors and
            its structure.
        team: the processes that share the batches out among them; all of them get the same report.
        on_progress: called, in every process, before the first batch of a column and after each; may raise to stop.

    Returns:
        The bits, and everything computed from them.

    Raises:
        UnreadableDataError: no images, or images and labels of unlike number or kind.
        ClassMismatchError: a label that the model has no logit for.
        WriteError: the state cannot be written.
    """
    pictures, targets = _checked(images, labels)
    attacks = suite.attacks
    columns = [_CLEAN, *(name for name, _ in attacks)]
    key = ""
    if state is not None:
        digest = model_digest or _model_digest(model)
        key = _key(digest, pictures, targets, threat, suite, seed=seed, batch_size=batch_size, mode=mode)
    known = EvaluationState.open(state, key, columns, len(targets), rank=team.rank)
    report_progress = on_progress or (lambda name, done, total: None)

    def run(name: str, among: NDArray[np.intp], broken: Callable[[Tensor, Tensor, int], Tensor]) -> None:
        """Fill a column's unknown bits, batch by batch, at the positions ``among``; elsewhere it is wrong."""
        bits = known.bits[name]
        bits[np.setdiff1d(np.arange(len(bits)), among)] = WRONG
        report_progress(name, int((bits[among] != UNKNOWN).sum()), len(among))
        for start, index in list(_batches(among, batch_size))[team.rank :: team.size]:
            if (bits[index] != UNKNOWN).all():
                continue
            x, y = _on_device(pictures[index], targets[index], device)
            bits[index] = np.where(broken(x, y, start).cpu().numpy(), WRONG, RIGHT)
            known.save()
            report_progress(name, min(start + batch_size, len(among)), len(among))
        if team.size > 1:
            team.maximum_(bits)
            if team.is_main:
                known.save()
            report_progress(name, len(among), len(among))

    @cache
    def attacked() -> nn.Module:
        """Made when first needed: a finished evaluation makes none."""
        x, _ = _on_device(pictures[:_SAMPLE], targets[:_SAMPLE], device)
        return twin_or_itself(model, x)

    run(_CLEAN, np.arange(len(targets)), lambda x, y, _: _errs(model, x, y, chunk_of(attacked())))
    standing = known.bits[_CLEAN] == RIGHT
    for name, attack in attacks:
        run(name, np.flatnonzero(standing), _breaker(model, attacked, attack, threat, (seed, "attack", name)))
        if mode == "cascade":
            standing = known.bits[name] == RIGHT

    known.absorb()
    right: dict[str, Bits] = {name: bits == RIGHT for name, bits in known.bits.items()}
    clean = right.pop(_CLEAN)
    alarms = _weaker_with_more_steps(suite, right) if mode == "alone" else ()
    return Report(threat, str(suite), seed, mode, clean, right, alarms)


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
    x, y = _on_device(pictures, targets, device)
    _errs(model, x, y)  # warms up: allocation and algorithm choice happen once
    begin = time.perf_counter()
    _errs(model, x, y).cpu()
    return (time.perf_counter() - begin) / len(pictures) * AUTOATTACK_FORWARDS * standing


def _breaker(
    model: nn.Module, attacked: Callable[[], nn.Module], attack: Attack, threat: Threat, key: tuple[int | str, ...]
) -> Callable[[Tensor, Tensor, int], Tensor]:
    def broken(x: Tensor, y: Tensor, start: int) -> Tensor:
        found = attack(attacked(), x, y, threat, make_generator(*key, start))
        if attacked() is model:
            return found.broken
        wrong = _errs(model, found.x_adv, y, chunk_of(attacked()))
        # An attack stops where the twin errs: by the model's own judgement it may have stopped too soon.
        unsettled = torch.nonzero(found.broken & ~wrong).squeeze(1)
        if len(unsettled):
            LOG.info("%s: %d image(s) break the frozen twin alone; attacking the model itself", key[-1], len(unsettled))
            again = attack(model, x[unsettled], y[unsettled], threat, make_generator(*key, start, "again"))
            wrong[unsettled] = again.broken
        return wrong

    return broken


def _errs(model: nn.Module, x: Tensor, y: Tensor, chunk: int | None = None) -> Tensor:
    with module_mode(model, training=False):
        logits = in_chunks(model, x, chunk)
    classes = logits.shape[1]
    if int(y.max()) >= classes:
        raise ClassMismatchError(
            f"the model has {classes} classes, and a label is {int(y.max())}.",
            "Choose the dataset that the model was trained for.",
        )
    return is_wrong(logits, y)


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


def _batches(index: NDArray[np.intp], size: int) -> Iterator[tuple[int, NDArray[np.intp]]]:
    for start in range(0, len(index), size):
        yield start, index[start : start + size]


def _on_device(
    pictures: NDArray[np.uint8], targets: NDArray[np.int64], device: torch.device | str
) -> tuple[Tensor, Tensor]:
    # Divided on the host: CUDA multiplies by a rounded 1/255, and a verifier's images would differ in the last bit.
    x = torch.from_numpy(pictures.astype(np.float32) / np.float32(255))
    return x.to(device), torch.from_numpy(targets).to(device)


def _key(
    model_digest: str,
    pictures: NDArray[np.uint8],
    targets: NDArray[np.int64],
    threat: Threat,
    suite: Suite,
    **settings: Any,
) -> str:
    inputs = {
        "model": model_digest,
        "shape": list(pictures.shape),
        "images": hashlib.sha256(np.ascontiguousarray(pictures).data).hexdigest(),
        "labels": hashlib.sha256(np.ascontiguousarray(targets).data).hexdigest(),
        "threat": [threat.norm, threat.eps],
        "suite": describe(suite),
        "numerics": _NUMERICS,
        **settings,
    }
    return sha256_bytes(canonical_json(inputs).encode())


def _model_digest(model: nn.Module) -> str:
    """SHA-256 of what a model computes with: its printed structure, its specs, every parameter and every buffer."""
    # Buffers outside the state dict count as well: a classifier's normalisation is one.
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    if not tensors:
        raise ValueError("a model without tensors needs model_digest, or its state could pass for another's")
    specs = [module.spec for module in model.modules() if isinstance(module, Classifier)]
    digest = hashlib.sha256(f"{model}\x1f{specs}".encode())
    for name, tensor in tensors.items():
        digest.update(f"\x1f{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1f".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _weaker_with_more_steps(suite: Suite, right: dict[str, Bits]) -> tuple[Alarm, ...]:
    """An alarm for each pair of attacks on one loss of which the one with more steps broke clearly fewer images."""
    settings = {entry["column"]: entry["settings"] for entry in describe(suite)["attacks"]}
    ladder = [(name, chosen) for name, chosen in settings.items() if {"steps", "loss"} <= set(chosen)]
    alarms = []
    for few, fewer in ladder:
        for many, more in ladder:
            if fewer["loss"] != more["loss"] or fewer["steps"] >= more["steps"]:
                continue
            excess = int(right[many].sum()) - int(right[few].sum())
            if excess > 0 and wilson_interval(excess, len(right[few]))[0] > _STEPS_ALLOWANCE:
                alarms.append(
                    Alarm(
                        "more-steps-weaker",
                        f"{few} ({fewer['steps']} steps) broke {excess} images more than {many} "
                        f"({more['steps']} steps): gradients may be masked, or the steps too short for this radius",
                    )
                )
    return tuple(alarms)
