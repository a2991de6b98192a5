"""From a checkpoint to the artifact: an ONNX file that computes the same, its claim, and the evidence beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from torch import nn

from compressor.checkpoint import LoadedCheckpoint, normalization_name
from compressor.core.contracts import Dataset
from compressor.core.errors import ClassMismatchError, ExportError, UsageError
from compressor.core.notebook import html_table, percent
from compressor.core.reporting import OnProgress
from compressor.core.types import Threat
from compressor.models.classifier import Classifier
from compressor.models.modes import module_mode
from compressor.numerics.augment import to_float_tensor
from compressor.numerics.randomness import derive_seed, make_generator
from compressor.system.files import sha256_bytes, sha256_file, write_bytes
from compressor.system.sizes import format_size
from exporters.artifact.app_metadata import add_app_metadata
from exporters.artifact.sealing import ExportSettings, Provenance, Sealed, seal
from exporters.claim.claim import PRECISIONS, Claim
from exporters.claim.evidence import evidence_path
from exporters.claim.signing import sign_files, signature_path
from exporters.differentiable.arithmetic import Arithmetic
from exporters.differentiable.logit_agreement import compare_as
from exporters.model_file.runtime import open_session
from exporters.precision.calibration import CALIBRATION_IMAGES, attack_network, calibration_images, search_images
from exporters.precision.half import to_half
from exporters.precision.measuring import robust_under_attack
from exporters.precision.search import Int8Search, search_int8
from exporters.writing.fixed_batch import with_fixed_batch
from exporters.writing.onnx import Parity, check_parity, export_onnx, serialise

if TYPE_CHECKING:
    pass

INSIDE = "inside the model"
"""What a claim says of the normalisation of a plain module: it takes images in [0, 1], and the rest is not recorded."""

_PARITY_IMAGES = 64
_SEARCH_IMAGES = 256


@dataclass(frozen=True, eq=False)
class Converted:
    """A model in one precision, not yet sealed.

    Attributes:
        model: it.
        parity: how close its logits are: fp32 to the checkpoint's, the others to fp32's.
        description: what the claim says of the precision.
        notes: what a person should know of the conversion, in sentences.
        search: how INT8 settings were found; None for the others.
    """

    model: onnx.ModelProto
    parity: Parity
    description: dict[str, Any]
    notes: tuple[str, ...] = ()
    search: Int8Search | None = None


@dataclass(frozen=True, eq=False)
class Artifact:
    """An ONNX file that was exported. It stands for its path wherever a path is taken (``os.fspath``).

    Attributes:
        path: the ONNX file.
        precision: ``fp32``, ``fp16`` or ``int8``.
        evidence: the evidence file; None where the file makes no claim.
        signature: the signature file, or None.
        settings: how the file was made.
        converted: what was written, before the claim was added.
        sealed: the bytes of both files, and the claim; None where the file makes none.
    """

    path: Path
    precision: Arithmetic
    evidence: Path | None
    signature: Path | None
    settings: ExportSettings = field(repr=False)
    converted: Converted = field(repr=False)
    sealed: Sealed | None = field(default=None, repr=False)

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def claim(self) -> Claim | None:
        """What the file claims of itself, if anything."""
        return None if self.sealed is None else self.sealed.claim

    @property
    def parity(self) -> Parity:
        """How close the file's logits are: fp32 to the checkpoint's, other precisions to fp32's."""
        return self.converted.parity

    def to_json(self) -> dict[str, Any]:
        """An entry of ``exports`` in what ``compress export --json`` prints; its ``verdict`` is not known yet."""
        claim = None if self.claim is None else self.claim.to_json()
        return describe_file(self.path, self.precision, self.settings, claim) | self.describe_making()

    def describe_making(self) -> dict[str, Any]:
        """The fields of :meth:`to_json` that the file does not tell."""
        search = self.converted.search
        return {
            "signature": None if self.signature is None else str(self.signature),
            "search": None if search is None else search.to_json(),
        }

    def _repr_html_(self) -> str:
        """Return a table of the file, its size and its claim, for a notebook."""
        claim = self.claim
        rows = [("precision", self.precision), ("size", format_size(self.path.stat().st_size))]
        if claim is None:
            rows.append(("claim", "none"))
        else:
            n = claim.samples
            rows += [
                ("threat", str(claim.threat)),
                ("images", f"{n:,} of {claim.dataset['name']}"),
                ("clean accuracy", percent(claim.clean_correct / n)),
                ("robust accuracy", percent(claim.robust / n)),
                ("alarms", ", ".join(claim.alarms) or "none"),
            ]
        rows += [
            (name, str(path)) for name, path in (("evidence", self.evidence), ("signature", self.signature)) if path
        ]
        return html_table(str(self.path), ["", ""], rows)


def describe_file(
    path: Path, precision: Arithmetic, settings: ExportSettings, claim: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What ``compress export --json`` says of a file.

    Args:
        path: the file.
        precision: of it.
        settings: how it was made.
        claim: its claim as JSON, empty where it could not be read; None where the file makes none.
    """
    counts = claim or {}
    samples = counts.get("samples") or 0
    return {
        "path": str(path),
        "precision": precision,
        "opset": settings.opset,
        "fixed_batch": settings.fixed_batch,
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
        "evidence": "none" if claim is None else "images" if settings.with_images else "digests",
        "signature": None,
        "clean_accuracy": counts["clean_correct"] / samples if samples else None,
        "robust_accuracy": counts["robust"] / samples if samples else None,
        "verdict": None,
        "alarms": list(counts.get("alarms", ())),
        "search": None,
    }


class Exporter:
    """One checkpoint on its way into files: what several precisions share is made once, and only if it is needed.

    Args:
        loaded: the checkpoint, or what was made of a module in memory; on another device it is moved to the CPU.
        dataset: its test split gives the evidence, its training split what fewer bits are calibrated on.
        threat: what the claims are about.
        settings: see there.
        module: the module in memory; None for a checkpoint. It comes from no file, so that claims name none.
    """

    def __init__(
        self,
        loaded: LoadedCheckpoint,
        dataset: Dataset,
        threat: Threat,
        settings: ExportSettings | None = None,
        module: nn.Module | None = None,
    ) -> None:
        self.loaded = loaded
        self.dataset = dataset
        self.threat = threat
        self.settings = settings or ExportSettings()
        self._module = module
        self._classifier = loaded.classifier.cpu()

    def make(self, precision: Arithmetic, path: Path, on_progress: OnProgress | None = None) -> Artifact:
        """Export, convert, compare, attack, and write both files.

        Args:
            precision: ``fp32``, ``fp16`` or ``int8``.
            path: the ONNX file to write.
            on_progress: told what is being done.

        Raises:
            ExportError: the file does not compute what the checkpoint does, or cannot be verified; nothing is written.
            ClassMismatchError: the data have another number of classes.
            UsageError: no such precision, no training images to calibrate with, or class names that are no plain text.
        """
        converted = self.convert(precision)
        provenance = _provenance(self.loaded, self._module, converted.description)
        sealed = seal(converted.model, self.dataset, self.threat, self.settings, provenance, on_progress)
        beside = sealed.write(path, self.settings.evidence_file)
        signature = self._sign(path, beside, sealed)
        return Artifact(path, precision, beside, signature, self.settings, converted, sealed)

    def write_bare(self, precision: Arithmetic, path: Path) -> Artifact:
        """Export, convert, compare and write a model without claim or evidence: nothing is attacked.

        Evidence and a signature that lie beside it were of another file, and are taken away.

        Raises:
            ClassMismatchError, ExportError, UsageError: see :meth:`make`.
        """
        converted = self.convert(precision)
        write_bytes(path, serialise(converted.model))
        for stale in (evidence_path(path), signature_path(path)):
            stale.unlink(missing_ok=True)
        return Artifact(path, precision, None, None, self.settings, converted)

    def _sign(self, path: Path, evidence: Path, sealed: Sealed) -> Path | None:
        """Sign both files, or take away a signature that was of other ones."""
        signature = signature_path(path)
        if self.settings.key is None:
            signature.unlink(missing_ok=True)
            return None
        digests = {path.name: sha256_bytes(sealed.model), evidence.name: sha256_bytes(sealed.evidence)}
        write_bytes(signature, sign_files(digests, path.stem, self.settings.key))
        return signature

    def convert(self, precision: Arithmetic) -> Converted:
        """The model in one precision, in the form that is asked for; see :meth:`make`."""
        converted = self._of_any_batch(precision)
        batch = self.settings.fixed_batch
        return converted if batch is None else replace(converted, model=self._fixed(converted.model, precision, batch))

    def _of_any_batch(self, precision: Arithmetic) -> Converted:
        match precision:
            case "fp32":
                return self._fp32
            case "fp16":
                return self._half()
            case "int8":
                return self._int8()
        raise UsageError(f"the precision {precision!r} is not known.", f"Use one of {', '.join(PRECISIONS)}.")

    @cached_property
    def _fp32(self) -> Converted:
        spec, class_names = self.loaded.spec, self.dataset.class_names
        if len(class_names) != spec.classes:
            raise ClassMismatchError(
                f"the model has {spec.classes} classes, and {self.dataset.name} has {len(class_names)}.",
                "Give the data that the model was made for.",
            )
        channels = self.dataset.load("test").images.shape[1]
        model = export_onnx(self._classifier, spec.image_size, channels=channels, opset=self.settings.opset)
        add_app_metadata(model, class_names, spec.image_size)
        return Converted(model, check_parity(self._classifier, model, self._parity_images), {"name": "fp32"})

    def _half(self) -> Converted:
        half = to_half(self._fp32.model, self._calibration)
        result = compare_as("fp16", self._fp32_logits, self._logits(half.model))
        if not result.passed:
            raise ExportError(
                f"the float16 file does not compute what the fp32 file does ({result}).",
                "Export it in fp32 or int8; nothing was written.",
            )
        notes = (f"{len(half.kept)} operators stay in fp32, as their values would overflow",) if half.kept else ()
        parity = Parity(len(self._parity_images), result.argmax_agreement, result.max_relative_error)
        return Converted(half.model, parity, {"name": "fp16", "fp32_operators": list(half.kept)}, notes)

    def _int8(self) -> Converted:
        seed = self.settings.seed
        images, labels = search_images(self.dataset, count=_SEARCH_IMAGES, seed=seed)

        def measure(model: onnx.ModelProto) -> Any:
            return robust_under_attack(
                model, images, labels, self.threat, seed=derive_seed(seed, "search"), threads=self.settings.threads
            )

        search = search_int8(self._fp32.model, self._calibration, measure)
        model = search.best.model
        result = compare_as("int8", self._fp32_logits, self._logits(model))
        description = {
            "name": "int8",
            **search.best.settings.to_json(),
            "images": len(self._calibration) // 2,
            "search": search.to_json(),
        }
        parity = Parity(len(self._parity_images), result.argmax_agreement, result.max_relative_error)
        return Converted(model, parity, description, tuple(_told(search)), search)

    def _fixed(self, model: onnx.ModelProto, precision: Arithmetic, batch: int) -> onnx.ModelProto:
        """The same model for a fixed batch: made last, since calibration and search run other batches."""
        fixed = with_fixed_batch(model, batch)
        add_app_metadata(fixed, self.dataset.class_names, self.loaded.spec.image_size)
        result = compare_as(precision, self._logits(model), self._logits(fixed))
        if not result.passed:
            raise ExportError(
                f"the file of a fixed batch does not compute what the one of any batch does ({result}).",
                "Leave --fixed-batch out; nothing was written.",
            )
        return fixed

    @cached_property
    def _calibration(self) -> Any:
        settings = self.settings
        return calibration_images(
            self._classifier, self.dataset, self.threat, count=CALIBRATION_IMAGES, seed=settings.seed
        )

    @cached_property
    def _parity_images(self) -> torch.Tensor:
        return _parity_images(self.loaded, self.dataset, self.threat)

    @cached_property
    def _fp32_logits(self) -> Any:
        return self._logits(self._fp32.model)

    def _logits(self, model: onnx.ModelProto) -> Any:
        session = open_session(serialise(model), threads=self.settings.threads)
        return session(np.ascontiguousarray(self._parity_images.numpy()))


def _told(search: Int8Search) -> list[str]:
    """What the search found, in sentences; nothing where there was nothing to compare on."""
    n = len(search.fp32)
    if n == 0:
        return ["all training images were calibrated on, so no INT8 settings were compared"]
    robust = int(search.fp32.sum())
    told = [f"of {n} training images {robust} are robust in fp32, {int(search.candidates[0].robust.sum())} in INT8"]
    if len(search.candidates) > 1:
        told += [f"{candidate.settings}: {int(candidate.robust.sum())} robust" for candidate in search.candidates[1:]]
        helped = search.best is not search.candidates[0]
        told.append(f"taken: {search.best.settings}" if helped else "nothing helped: the defaults are taken")
    return told


def _parity_images(loaded: LoadedCheckpoint, dataset: Dataset, threat: Threat) -> torch.Tensor:
    """Natural test images, and the same ones under PGD: a graph may agree on the first and not on the second."""
    test, classifier = dataset.load("test"), loaded.classifier
    x = to_float_tensor(torch.from_numpy(np.ascontiguousarray(test.images[:_PARITY_IMAGES])))
    y = torch.from_numpy(test.labels[:_PARITY_IMAGES])
    with module_mode(classifier, training=False):
        return torch.cat([x, attack_network(classifier, x, y, threat, make_generator("parity"))])


def _provenance(loaded: LoadedCheckpoint, module: nn.Module | None, precision: dict[str, Any]) -> Provenance:
    metadata: Any = loaded.metadata
    is_known = module is None or isinstance(module, Classifier)
    return Provenance(
        recipe=metadata.get("recipe"),
        teacher=metadata.get("parent_sha256"),
        student=loaded.sha256 if module is None else None,
        preprocessing={
            "normalization": normalization_name(loaded.spec.normalization) if is_known else INSIDE,
            "resize": "shorter side, centre crop",
        },
        precision=precision,
    )
