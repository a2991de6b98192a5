"""``compress export``: a checkpoint becomes an ONNX file with a claim, and the evidence beside it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cli import options
from cli.output import Output


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint of ours, or a foreign one.")],
    to: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE|DIR", help="Default: model.onnx beside the checkpoint."),
    ] = None,
    evidence_file: Annotated[
        Path | None, typer.Option("--evidence-file", metavar="FILE", help="Default: beside the model.")
    ] = None,
    evidence_samples: options.EvidenceSamples = 256,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    download: options.Download = False,
    image_size: options.ImageSize = None,
    model: options.ModelName = None,
    normalization: options.Normalization = None,
    activation: options.Activation = None,
    eps: options.Eps = None,
    norm: options.Norm = None,
    suite: options.Suite = None,
    seed: options.Seed = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Write a verified ONNX file: parity with the checkpoint, attacks on the file itself, claim and evidence."""
    from cli.inputs import Inputs, default_threat, open_checkpoint
    from cli.stages import export_and_verify
    from compressor.devices import set_threads
    from compressor.errors import UsageError
    from compressor.training.interruption import stop_on_signals

    path = to or checkpoint.parent / "model.onnx"
    if path.is_dir() or path.suffix != ".onnx":
        path = path / "model.onnx"
    for existing in (path, *([evidence_file] if evidence_file else [])):
        if existing.exists() and not force:
            raise UsageError(f"{existing} exists already.", "Add --force to replace it, or choose another name.")
    inputs = Inputs(data, data_dir, download, "cpu", threads)
    with Output(as_json=as_json, quiet=quiet) as output, stop_on_signals() as stop:
        loaded, dataset = open_checkpoint(
            checkpoint, inputs, output,
            model=model, normalization=normalization, activation=activation, image_size=image_size,
        )  # fmt: skip
        threat = default_threat(loaded.metadata.get("threat", {}), eps, norm)
        exported, verdict = export_and_verify(
            loaded, dataset, threat, path,
            samples=evidence_samples, seed=seed or 0, suite=suite, evidence=evidence_file, force=force,
            threads=set_threads(threads), output=output, stop=stop,
        )  # fmt: skip
        output.json("compress.export/1", {"exports": [exported]})
        output.line(shlex.join(["compress", "verify", str(path)]))
    return verdict.exit_code
