"""``compress inspect``: what a file is, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options.shared_options import OutputOptions


def inspect(
    printing: OutputOptions,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint or an ONNX file.")],
) -> int:
    """Show what a checkpoint or an ONNX file is, and what it says of itself."""
    import exporters

    with printing.open() as output:
        found = exporters.inspect(file)
        output.table(str(file), ["field", "value"], found.rows(), figures=False)
        for note in found.notes:
            output.note(note)
        output.json("compress.inspect/1", found.to_json())
    return 0
