"""``compress manifest``: a dataset's test split by digests, to bind claims to a dataset without having it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import common as options
from cli.options.declaring import option, switch
from cli.options.shared_options import OutputOptions


def manifest(
    printing: OutputOptions,
    data: Annotated[str, typer.Argument(metavar="SPEC", help="Dataset, such as cifar10 or imagefolder:DIR.")],
    to: Annotated[Path, option("FILE", "Write the manifest to FILE.", names=("--output", "-o"))],
    data_dir: options.DataDir = None,
    download: options.Download = False,
    image_size: options.ImageSize = None,
    force: Annotated[bool, switch("--force", "Replace an existing file.")] = False,
) -> int:
    """Write the digests of a dataset's test images, which `compress verify --manifest` takes in place of the data."""
    from compressor.api.inputs import decoding_shown
    from compressor.system.interruption import stop_on_signals
    from exporters import write_manifest

    with printing.open() as output, stop_on_signals() as stop, decoding_shown(output, stop):
        made = write_manifest(data, to, data_dir=data_dir, download=download, image_size=image_size, force=force)
        output.line(f"{to}: {len(made.labels):,} images of {data}, digest {made.digest}")
        output.json("compress.manifest/1", {"path": str(to), "images": len(made.labels), "digest": made.digest})
    return 0
