"""``compress export``: a checkpoint becomes ONNX files, each with a claim, and the evidence beside it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import common as options
from cli.options.declaring import option, switch
from cli.options.shared_options import OutputOptions, with_options
from compressor.system.sizes import format_size

if TYPE_CHECKING:
    from cli.output.console import Output
    from exporters.api.exporting import Steps
    from exporters.artifact.artifact import Exporter
    from exporters.differentiable.arithmetic import Arithmetic


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
    from cli.output.tables import show_exports, steps_of
    from compressor.system.interruption import stop_on_signals
    from exporters.api.exporting import as_export_request, export_and_verify, plan_export

    plan = plan_export(as_export_request(checkpoint, **asdict(shared)))
    with printing.open() as output, stop_on_signals() as stop:
        exporter, steps = plan.open(output), steps_of(output, stop)
        if shared.evidence == "none":
            output.json("compress.export/1", {"exports": _export_bare(exporter, plan.paths, steps, output)})
            return 0
        exported = [export_and_verify(exporter, name, path, steps, force=True) for name, path in plan.paths.items()]
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


def _export_bare(
    exporter: Exporter, paths: Mapping[Arithmetic, Path], steps: Steps, output: Output
) -> list[dict[str, Any]]:
    """Write models without a claim, say so, and return the entries of ``exports``."""
    from cli.output.tables import show_mobile
    from exporters.api.exporting import make_file
    from exporters.artifact.mobile import mobile_usability

    fields: list[dict[str, Any]] = []
    usability = {}
    for precision, path in paths.items():
        artifact = make_file(exporter, precision, path, steps, bare=True)
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
