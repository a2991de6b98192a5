"""Makes the claim of a model file: the verifier's own attacks, run twice, and what became of each image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch

from compressor.core.contracts import Dataset
from compressor.core.errors import (
    ClassMismatchError,
    ExportError,
    UnreadableDataError,
    UnsupportedOperatorError,
    UsageError,
)
from compressor.core.reporting import OnProgress
from compressor.core.types import Threat
from compressor.evaluation.report import Alarm
from compressor.evaluation.suites import get_suite
from compressor.numerics.ball import inside_ball
from compressor.numerics.randomness import derive_seed
from compressor.system.files import sha256_bytes, write_bytes
from compressor.version import __version__
from exporters.claim.claim import Claim, model_bytes, model_digest, parse_claim, with_claim
from exporters.claim.evidence import (
    MAX_BYTES,
    MAX_SAMPLES,
    Bits,
    Bytes,
    Evidence,
    Floats,
    evidence_path,
    to_float_array,
    without_images,
)
from exporters.file_attacks.attacks import AttackedImages, build_attempts, run_attempts
from exporters.file_attacks.gradients import Gradients, open_gradients
from exporters.file_attacks.masked_gradients import find_masked_gradients
from exporters.file_attacks.random_images import draw_in_ball
from exporters.file_attacks.suite import VERIFY_SUITE
from exporters.file_attacks.target import Target, open_file_target
from exporters.model_file.opset import OPSET, check_opset
from exporters.model_file.runtime import Session, open_session
from exporters.verification.verifier_data import SPLIT, EvidenceDraw, draw_images
from exporters.writing.fixed_batch import check_batch

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

SAMPLES = 256
RUNS = 2
"""Independent seeds under which an image must not be broken to be called robust."""


@dataclass(frozen=True)
class ExportSettings:
    """What all files of one export share.

    Attributes:
        samples: n, images in the evidence; all of the test split where it has fewer.
        seed: of the attacks, of calibration and of the search.
        suite: a stronger suite to seal with, after the verifier's own.
        threads: of onnxruntime.
        with_images: False leaves digests in the evidence in the place of images, which the verifier must then have.
        key: signs model and evidence; None leaves them unsigned.
        opset: of the files, one of :data:`exporters.model_file.opset.OPSETS`.
        fixed_batch: how many images the files take at once; None for any number.
        evidence_file: where the evidence of a single file goes, if not beside it.
    """

    samples: int = SAMPLES
    seed: int = 0
    suite: str | None = None
    threads: int | None = None
    with_images: bool = True
    key: EllipticCurvePrivateKey | None = None
    opset: int = OPSET
    fixed_batch: int | None = None
    evidence_file: Path | None = None

    def __post_init__(self) -> None:
        check_opset(self.opset)
        if self.fixed_batch is not None:
            check_batch(self.fixed_batch)


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from, as far as it is known; it goes into the claim as it is.

    Attributes:
        recipe: the resolved training recipe.
        teacher: SHA-256 of the teacher's file.
        student: SHA-256 of the checkpoint that was exported.
        licences: what is known of the licences of data and teacher.
        preprocessing: what was done to the pictures before the model sees them, besides their size.
        precision: ``name`` (``fp32``, ``fp16`` or ``int8``), and how the file was made from the fp32 one.
    """

    recipe: dict[str, Any] | None = None
    teacher: str | None = None
    student: str | None = None
    licences: dict[str, Any] | None = None
    preprocessing: dict[str, Any] = field(default_factory=dict)
    precision: dict[str, Any] = field(default_factory=lambda: {"name": "fp32"})


@dataclass(frozen=True)
class Sealed:
    """A model with its claim, and the evidence that goes beside it.

    Attributes:
        claim: what is claimed.
        model: the bytes of the ``.onnx`` file.
        evidence: the bytes of the ``.evidence.npz`` file.
        attacks: how many images each attack broke, over all runs.
        alarms: signs of masked gradients; the claim records their names.
    """

    claim: Claim
    model: bytes
    evidence: bytes
    attacks: Mapping[str, int]
    alarms: tuple[Alarm, ...] = ()

    def write(self, path: Path, evidence: Path | None = None) -> Path:
        """Write both files atomically, the evidence first, so that no model ever lies without it.

        Args:
            path: the model file.
            evidence: the evidence file, where it does not go beside the model.

        Returns:
            Where the evidence was written.

        Raises:
            WriteError: the file system refused.
        """
        beside = evidence or evidence_path(path)
        write_bytes(beside, self.evidence)
        write_bytes(path, self.model)
        return beside


def seal(
    model: onnx.ModelProto,
    dataset: Dataset,
    threat: Threat,
    settings: ExportSettings | None = None,
    provenance: Provenance | None = None,
    on_progress: OnProgress | None = None,
) -> Sealed:
    """Attack a model with the verifier's own suite, twice, and write down what is robust.

    Equal arguments on an equal machine give equal bytes.

    Args:
        model: the exported classifier; not changed.
        dataset: its test split gives the images, a draw that its digest fixes.
        threat: the ball.
        settings: see there; each run of the attacks derives a seed of its own.
        provenance: where the model comes from.
        on_progress: told what is being done.

    Returns:
        The model with its claim, and the evidence.

    Raises:
        ExportError: the verifier could not have the gradients of this file.
        ClassMismatchError, UnreadableDataError, UsageError: the data do not fit the model, or there are none.
    """
    settings = settings or ExportSettings()
    samples, suite, seed = settings.samples, settings.suite, settings.seed
    if samples < 1:
        raise UsageError(f"a claim of {samples} images claims nothing.", "Ask for 1 or more evidence images.")
    if samples > MAX_SAMPLES:
        raise UsageError(f"{samples} images are more than the {MAX_SAMPLES} that a verifier reads.")
    session = open_session(model_bytes(model), threads=settings.threads)
    drawn = draw_images(dataset, samples)
    _check_fit(session, drawn)
    images = to_float_array(drawn.images)
    target = open_file_target(session, images, model)
    stronger = str(get_suite(suite)) if suite not in (None, "verify", VERIFY_SUITE) else None
    suite = VERIFY_SUITE if stronger is None else f"{VERIFY_SUITE}+{stronger}"
    drawn_inside = draw_in_ball(images, threat, derive_seed(seed, "seal", "gate"))
    gradients = _gradients(model, target, images, drawn_inside)
    attempts = build_attempts(suite, target.session, gradients)
    seeds = tuple(derive_seed(seed, "seal", run) for run in range(RUNS))

    clean = np.asarray(target.judge(images, drawn.labels)[0] > 0)
    robust, x_adv = clean.copy(), images.copy()
    counts: dict[str, int] = {}
    for run_seed in seeds:
        robust_so_far = np.flatnonzero(robust)
        outcome = run_attempts(
            attempts,
            target,
            images[robust_so_far],
            drawn.labels[robust_so_far],
            threat,
            seed=run_seed,
            on_progress=on_progress,
        )
        x_adv[robust_so_far], robust[robust_so_far] = outcome.x_adv, ~outcome.broken
        counts = {name: counts.get(name, 0) + count for name, count in outcome.counts.items()}
    # The last run is what a verifier's will be: fresh attacks on the images that are robust so far.
    last = AttackedImages(images, drawn.labels, robust_so_far, outcome, threat)
    findings = find_masked_gradients(target, gradients, last, derive_seed(seed, "seal", "alarms"))
    found = _evidence(target, threat, drawn, clean=clean, robust=robust, x_adv=x_adv)
    evidence = found.to_bytes() if settings.with_images else without_images(found).to_bytes()
    if len(evidence) > MAX_BYTES:
        raise UsageError(
            f"the evidence would be {len(evidence)} bytes, more than the {MAX_BYTES} that a verifier reads."
        )
    provenance = provenance or Provenance()
    claim = Claim(
        samples=len(images),
        clean_correct=int(clean.sum()),
        robust=int(robust.sum()),
        norm=threat.norm,
        eps=threat.eps,
        suite=suite,
        seeds=seeds,
        versions={
            "compress": __version__,
            "numpy": np.__version__,
            "onnx": onnx.__version__,
            "torch": str(torch.__version__),
        },
        runtime=session.describe(),
        class_names=drawn.class_names,
        preprocessing={
            **provenance.preprocessing,
            "channels": session.image_shape[0],
            "image_size": session.image_shape[1],
            "range": "[0, 1]",
        },
        precision=provenance.precision,
        dataset={
            "name": drawn.name,
            "split": SPLIT,
            "digest": drawn.digest,
            "total": drawn.total,
            "draw": drawn.rule,
        },
        recipe=provenance.recipe,
        teacher=provenance.teacher,
        student=provenance.student,
        licences=provenance.licences,
        evidence=sha256_bytes(evidence),
        model=model_digest(model),
        alarms=findings.names,
    ).sealed()
    parse_claim(claim.to_text())  # what a verifier could not read must not leave this machine
    return Sealed(claim, model_bytes(with_claim(model, claim)), evidence, counts, findings.alarms)


def _check_fit(session: Session, drawn: EvidenceDraw) -> None:
    if len(drawn.class_names) != session.classes:
        raise ClassMismatchError(
            f"the model has {session.classes} classes, and {drawn.name} has {len(drawn.class_names)}.",
            "Give the data that the model was made for.",
        )
    if len(drawn.labels) == 0:
        raise UnreadableDataError(f"the dataset {drawn.name} has no test images to make a claim of.")
    channels, height, width = session.image_shape
    if drawn.images.shape[1:] != (channels, height, width) or height != width:
        raise UsageError(
            f"the model takes images of {channels}x{height}x{width}, and those of {drawn.name} differ.",
            "Give the --image-size that the model was made for.",
        )


def _gradients(model: onnx.ModelProto, target: Target, images: Floats, inside: Floats) -> Gradients:
    try:
        gradients, agreement = open_gradients(target, model, images, inside)
    except UnsupportedOperatorError as error:
        raise ExportError(f"the file could not be verified: {error.message}", error.hint) from error
    if gradients is None:
        raise ExportError(
            f"the file could not be verified: the importer does not compute what it does ({agreement}).",
            "Please report the architecture and the versions of torch, onnx and onnxruntime.",
        )
    return gradients


def _evidence(
    target: Target,
    threat: Threat,
    drawn: EvidenceDraw,
    *,
    clean: Bits,
    robust: Bits,
    x_adv: Floats,
) -> Evidence:
    """Part the adversarial images into those that stay adversarial when rounded to bytes and those that do not."""
    misclassified = np.flatnonzero(clean & ~robust).astype(np.int64)
    natural, labels = to_float_array(drawn.images[misclassified]), drawn.labels[misclassified]
    rounded = _round_inside(x_adv[misclassified], drawn.images[misclassified], threat)
    as_floats = to_float_array(rounded)
    stays_adversarial = inside_ball(as_floats, natural, threat) & target.breaks(as_floats, labels)
    return Evidence(
        images=drawn.images,
        labels=drawn.labels.astype(np.int64),
        clean=clean,
        robust=robust,
        adversarial_u8=rounded[stays_adversarial],
        adversarial_u8_index=misclassified[stays_adversarial],
        adversarial_f32=x_adv[misclassified[~stays_adversarial]],
        adversarial_f32_index=misclassified[~stays_adversarial],
    )


def _round_inside(x_adv: Floats, images: Bytes, threat: Threat) -> Bytes:
    """The nearest bytes, moved one level towards the image where rounding left the Linf ball."""
    rounded = np.rint(x_adv * np.float32(255)).astype(np.int64)
    if threat.norm == "Linf":
        eps, natural = np.float32(threat.radius), to_float_array(images)
        values = to_float_array(rounded.astype(np.uint8))
        rounded += (values < natural - eps).astype(np.int64) - (values > natural + eps).astype(np.int64)
    return np.asarray(rounded, dtype=np.uint8)
