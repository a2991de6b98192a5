"""``compress inspect``: what a file is, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import common as options
from cli.output.console import Output


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint or an ONNX file.")],
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Show what a checkpoint or an ONNX file is, and what it says of itself."""
    import exporters

    with Output(as_json=as_json, quiet=quiet) as output:
        found = exporters.inspect(file)
        output.table(str(file), ["field", "value"], found.rows(), figures=False)
        for note in found.notes:
            output.note(note)
        output.json("compress.inspect/1", found.to_json())
    return 0
