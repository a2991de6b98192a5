"""Exports a file, verifies it, and shows both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli.output.console import Output
from cli.output.tables import show_artifact, show_mobile, show_verdict
from compressor.system.interruption import StopRequest
from compressor.system.sizes import format_size
from exporters.api.exporting import ExportedFile, is_exported, make_file, verify_file
from exporters.artifact.artifact import Exporter
from exporters.artifact.mobile import mobile_usability
from exporters.differentiable.arithmetic import Arithmetic


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
    """Make a file, unless it lies there undamaged, and verify it as its recipient will.

    Args:
        exporter: the model, its data and the settings.
        precision: of the file.
        path: the file.
        evidence: the evidence, if not beside the file.
        force: make it anew in any case, as is done where it must be signed.
        output: told of progress and results.
        stop: asked between batches.
    """
    artifact = None
    if not force and is_exported(path, evidence, precision, exporter):
        output.note(f"exported already: {path}")
    else:
        artifact = make_file(
            exporter, precision, path, evidence=evidence, reporter=output, check_stop=stop.raise_if_set
        )
        show_artifact(artifact, output)
    verdict = verify_file(exporter, path, evidence=evidence, reporter=output, check_stop=stop.raise_if_set)
    show_verdict(verdict, output)
    return ExportedFile(path, precision, exporter.settings, verdict, artifact)


def export_bare(exporter: Exporter, paths: Mapping[Arithmetic, Path], output: Output) -> list[dict[str, Any]]:
    """Write models without a claim, and say so.

    Returns:
        The entries of ``exports`` in the JSON of ``export``.
    """
    fields: list[dict[str, Any]] = []
    usability = {}
    for precision, path in paths.items():
        artifact = make_file(exporter, precision, path, bare=True, reporter=output)
        usability[precision] = mobile_usability(path.read_bytes())
        for note in artifact.converted.notes:
            output.note(note)
        output.line(
            f"{path}: {format_size(path.stat().st_size)}, without a claim: "
            "`compress verify` wants --data, --eps and --min-robust-accuracy"
        )
        fields.append(artifact.to_json() | usability[precision].to_json())
    show_mobile(usability, output)
    return fields
