"""``compress export``: a checkpoint becomes ONNX files, each with a claim, and the evidence beside it."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from cli.options import common as options
from cli.options.declaring import option, switch
from cli.options.shared_options import OutputOptions, with_options


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What is asked of an export: the arguments of ``exporters.export``, by their names."""

    output: Annotated[
        Path | None,
        option("FILE|DIR", "File or folder. Default: model.onnx beside the checkpoint.", names=("--output", "-o")),
    ] = None
    precision: Annotated[
        list[str] | None, option("P", "Precision: fp32 (default), fp16 or int8. Repeatable; each is a file.")
    ] = None
    opset: Annotated[
        int | None, option("N", "ONNX operator set, 13 to 21, for runtimes that know no newer one. Default: 20.")
    ] = None
    fixed_batch: Annotated[
        int | None, option("N", "Fix the batch size to N, as phones' compilers need. Default: dynamic.")
    ] = None
    evidence_file: Annotated[Path | None, option("FILE", "Evidence file. Default: beside the model.")] = None
    evidence: Annotated[
        str, option("MODE", "Evidence: images; digests (the verifier needs the dataset); none (no attack, no claim).")
    ] = "images"
    evidence_samples: options.EvidenceSamples = 256
    sign_key: Annotated[Path | None, option("FILE", "Sign model and evidence with this elliptic-curve key (PEM).")] = (
        None
    )
    force: Annotated[bool, switch("--force", "Replace existing files.")] = False
    data: options.Data = None
    data_dir: options.DataDir = None
    download: options.Download = False
    image_size: options.ImageSize = None
    model: options.ModelName = None
    normalization: options.Normalization = None
    activation: options.Activation = None
    eps: options.Eps = None
    norm: options.Norm = None
    suite: options.Suite = None
    seed: options.Seed = None
    threads: options.Threads = None


@with_options(ExportOptions)
def export(
    printing: OutputOptions,
    shared: ExportOptions,
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint, our own or a third-party one.")
    ],
) -> int:
    """Write verified ONNX files: parity with the checkpoint, attacks on each file itself, claim and evidence."""
    from cli.output.tables import show_exports
    from cli.stages.exporting import export_bare
    from cli.stages.whole_way import steps_of
    from compressor.system.interruption import stop_on_signals
    from exporters.api.exporting import as_request, export_and_verify, plan_export

    plan = plan_export(as_request(checkpoint, **asdict(shared)))
    with printing.open() as output, stop_on_signals() as stop:
        exporter = plan.open(output)
        if shared.evidence == "none":
            output.json("compress.export/1", {"exports": export_bare(exporter, plan.paths, output)})
            return 0
        steps = steps_of(output, stop)
        exported = [
            export_and_verify(exporter, name, path, steps, evidence=shared.evidence_file, force=True)
            for name, path in plan.paths.items()
        ]
        fields = show_exports(exported, output, threads=exporter.settings.threads)
        output.json("compress.export/1", {"exports": fields})
        needed = ["--evidence-file", str(shared.evidence_file)] if shared.evidence_file else []
        if shared.evidence == "digests":
            needed += ["--data", shared.data or exporter.dataset.name]
            needed += ["--data-dir", str(shared.data_dir)] if shared.data_dir else []
        for path in plan.paths.values():
            output.line(shlex.join(["compress", "verify", str(path), *needed]))
    codes = {done.verdict.exit_code for done in exported}
    return next((code for code in (1, 3) if code in codes), max(codes))
