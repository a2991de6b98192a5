"""The stage that turns a checkpoint into a file that was verified; it can be entered again and does what is left."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cli.output.console import Output
from cli.output.tables import artifact_entry, show_artifact, show_mobile, show_verdict
from compressor.api.inputs import decoding_shown
from compressor.core.errors import CompressError, UsageError
from compressor.system.files import sha256_bytes
from compressor.system.interruption import StopRequest
from compressor.system.sizes import format_size
from exporters.artifact.artifact import Exporter
from exporters.artifact.exported import ExportedFile
from exporters.artifact.mobile import MobileUsability, mobile_usability
from exporters.claim.claim import PRECISIONS, Claim, ClaimMismatchError, model_digest, read_claim
from exporters.claim.evidence import Evidence, evidence_path, parse_evidence, read_evidence_bytes
from exporters.claim.signing import signature_path
from exporters.differentiable.arithmetic import Arithmetic
from exporters.model_file.opset import opset_of
from exporters.model_file.structure import declared_layout_of, load_untrusted
from exporters.verification import VerifierData, verify

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey


def paths_of(precisions: Sequence[str] | None, to: Path | None, checkpoint: Path) -> Mapping[Arithmetic, Path]:
    """Where each precision goes: ``model.onnx``, ``model-fp16.onnx``, ``model-int8.onnx`` in a folder, or one file.

    Args:
        precisions: as they were given; fp32 where none was.
        to: a folder, or for one precision a file that ends in ``.onnx``; None for the checkpoint's folder.
        checkpoint: what is exported.

    Raises:
        UsageError: an unknown precision, or a file for several.
    """
    wanted = tuple(dict.fromkeys(precisions or ("fp32",)))
    for name in wanted:
        if name not in PRECISIONS:
            raise UsageError(f"the precision {name!r} is not known.", f"Use one of {', '.join(PRECISIONS)}.")
    names = cast(tuple[Arithmetic, ...], wanted)
    folder = checkpoint.parent if to is None else to
    if to is not None and to.suffix == ".onnx" and not to.is_dir():
        if len(names) > 1:
            raise UsageError(
                f"{to} is one file, and {len(names)} precisions were asked for.", "Give --output a folder."
            )
        return {names[0]: to}
    return {name: folder / ("model.onnx" if name == "fp32" else f"model-{name}.onnx") for name in names}


def refuse_to_replace(models: Iterable[Path], evidence: Path | None, *, force: bool) -> None:
    """Stop before any work where a file is in the way of an export, or two of its own would be one.

    Args:
        models: the files to write.
        evidence: the evidence file, if not beside the model.
        force: whether files that are there may be replaced.

    Raises:
        UsageError: there is one, or a folder cannot hold the files.
    """
    for model in models:
        if (obstacle := _no_folder(model)) is not None:
            raise UsageError(f"{obstacle} is not a folder.", "Give --output a file that ends in .onnx, or a folder.")
        files = (model, evidence or evidence_path(model), signature_path(model))
        if len({file.resolve() for file in files}) < len(files):
            raise UsageError(
                f"{evidence} is the name of another file of this export.", "Choose another --evidence-file."
            )
        # A signature that lies there would be of another file, and is not for us to take away unasked.
        for file in files:
            if file.exists() and not force:
                raise UsageError(f"{file} exists already.", "Add --force to replace it, or choose another name.")


def _no_folder(model: Path) -> Path | None:
    """The nearest of a file's folders that is there, if it is none."""
    nearest = next(folder for folder in model.parents if folder.exists())
    return None if nearest.is_dir() else nearest


def export_and_verify(
    exporter: Exporter,
    precision: Arithmetic,
    path: Path,
    *,
    evidence: Path | None = None,
    force: bool = False,
    output: Output,
    stop: StopRequest,
) -> ExportedFile:
    """Write the artifact, unless the very same one is there, and verify it as a stranger would.

    Args:
        exporter: the checkpoint, its data, threat and settings.
        precision: of the file.
        path: the file.
        evidence: its evidence, if not beside it.
        force: make it anew in any case, as is done where it must be signed.
        output: told of progress and results.
        stop: asked between batches.
    """

    def on_progress(name: str, done: int, total: int) -> None:
        output.advance(done, total, name)
        stop.raise_if_set()

    settings, artifact = exporter.settings, None
    if not force and settings.key is None and is_exported(path, evidence, precision, exporter):
        output.note(f"exported already: {path}")
    else:
        output.phase(
            f"Exporting {exporter.loaded.spec.name} in {precision} and attacking the file twice: {exporter.threat}"
        )
        with decoding_shown(output, stop):
            exporter.dataset.load("test")
        artifact = exporter.make(precision, path, evidence, on_progress)
        show_artifact(artifact, output)
    output.phase(f"Verifying {path} with fresh attacks")
    # Evidence without images is verified as its recipient will: with the data.
    held = None if settings.with_images else VerifierData(exporter.dataset)
    verdict = verify(path, evidence=evidence, data=held, threads=settings.threads, on_progress=on_progress)
    show_verdict(verdict, output)
    return ExportedFile(path, precision, settings, verdict, artifact)


def export_bare(exporter: Exporter, paths: Mapping[Arithmetic, Path], output: Output) -> list[dict[str, Any]]:
    """Write models without a claim, and say so.

    Returns:
        The entries of ``exports`` in the JSON of ``export``.
    """
    fields: list[dict[str, Any]] = []
    usability: dict[Arithmetic, MobileUsability] = {}
    for precision, path in paths.items():
        output.phase(f"Exporting {exporter.loaded.spec.name} in {precision}, without claim or evidence")
        converted = exporter.write_bare(precision, path)
        usability[precision] = mobile_usability(path.read_bytes())
        for note in converted.notes:
            output.note(note)
        output.line(
            f"{path}: {format_size(path.stat().st_size)}, without a claim: "
            "`compress verify` wants --data, --eps and --min-robust-accuracy"
        )
        fields.append(artifact_entry(path, precision, exporter.settings) | usability[precision].to_json())
    show_mobile(usability, output)
    return fields


def signing_key(path: Path | None) -> EllipticCurvePrivateKey | None:
    """The key that signs, opened with the password of the environment variable ``COMPRESS_SIGN_PASSWORD`` if any."""
    if path is None:
        return None
    from exporters.claim.signing import read_private_key

    return read_private_key(path, os.environ.get("COMPRESS_SIGN_PASSWORD"))


def is_exported(path: Path, evidence: Path | None, precision: Arithmetic, exporter: Exporter) -> bool:
    """Whether ``path`` holds what the workshop would make, undamaged, with its evidence beside it."""
    if not path.is_file():
        return False
    try:
        model = load_untrusted(path).model
        claim = read_claim(model)
        data = read_evidence_bytes(evidence or evidence_path(path))
        has_images = isinstance(parse_evidence(data), Evidence)
    except (CompressError, ClaimMismatchError):
        return False  # what is damaged or lacking is made anew
    return (
        claim is not None
        and _is_claim_of(claim, precision, exporter)
        and has_images == exporter.settings.with_images
        and (opset_of(model), declared_layout_of(model).batch)
        == (exporter.settings.opset, exporter.settings.fixed_batch)
        and claim.model == model_digest(model)
        and claim.evidence == sha256_bytes(data)
    )


def _is_claim_of(claim: Claim, precision: Arithmetic, exporter: Exporter) -> bool:
    return (
        claim.student == exporter.loaded.sha256
        and claim.precision["name"] == precision
        and claim.threat == exporter.threat
        and claim.samples in (exporter.settings.samples, claim.dataset["total"])
    )
