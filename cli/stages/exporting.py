"""Writes models without a claim, and shows them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli.output.console import Output
from cli.output.tables import show_mobile
from compressor.system.sizes import format_size
from exporters.api.exporting import Steps, make_file
from exporters.artifact.artifact import Exporter
from exporters.artifact.mobile import mobile_usability
from exporters.differentiable.arithmetic import Arithmetic


def export_bare(exporter: Exporter, paths: Mapping[Arithmetic, Path], output: Output) -> list[dict[str, Any]]:
    """Write models without a claim, and say so.

    Returns:
        The entries of ``exports`` in the JSON of ``export``.
    """
    fields: list[dict[str, Any]] = []
    usability = {}
    for precision, path in paths.items():
        artifact = make_file(exporter, precision, path, Steps(output), bare=True)
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
