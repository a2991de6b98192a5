"""``compress attack``: the accuracy of a checkpoint or an ONNX file under a suite of attacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options
from cli.output import Output
from compressor.errors import ClassMismatchError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from cli.inputs import Inputs
    from compressor.contracts import Dataset


def attack(
    target: Annotated[Path, typer.Argument(metavar="MODEL", help="A checkpoint or an ONNX file.")],
    suite: Annotated[
        str, typer.Option("--suite", metavar="NAME", help="Attack suite; `compress list suites` shows them.")
    ] = "quick",
    eval_samples: options.EvalSamples = None,
    eps: options.Eps = None,
    norm: options.Norm = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", metavar="N", help="Images at a time. Default: 128; 32 with AutoAttack."),
    ] = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    download: options.Download = False,
    image_size: options.ImageSize = None,
    model: options.ModelName = None,
    normalization: options.Normalization = None,
    activation: options.Activation = None,
    seed: options.Seed = None,
    state: Annotated[
        Path | None, typer.Option("--state", metavar="DIR", help="Keep what is done here, and go on from it.")
    ] = None,
    report_to: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="DIR",
            help="Write a folder for a reviewer: curves over eps, smallest perturbations, classes, a gallery.",
        ),
    ] = None,
    curve: Annotated[
        str | None,
        typer.Option("--curve", metavar="EPS,...", help="Radii of the report's curve. Default: 0 to 4 times eps."),
    ] = None,
    device: options.Device = "auto",
    provider: options.Provider = "cpu",
    threads: options.Threads = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Attack a checkpoint or an ONNX file and print one table, each accuracy with its 95 % interval."""
    from cli.attack_report import plan_report, write_report
    from cli.evaluation import attack_images, test_images
    from cli.inputs import Inputs, default_threat, open_checkpoint
    from cli.tables import show_report
    from compressor.files import sha256_file
    from compressor.suites import get_suite
    from compressor.training.interruption import stop_on_signals

    get_suite(suite)
    inputs = Inputs(data, data_dir, download, device, threads)
    with Output(as_json=as_json, quiet=quiet) as output, stop_on_signals() as stop:
        where = inputs.device()
        module: nn.Module
        if target.suffix == ".onnx":
            given = {
                "--image-size": image_size,
                "--model": model,
                "--normalization": normalization,
                "--activation": activation,
            }
            _refuse({name for name, value in given.items() if value is not None})
            module, dataset, recorded = _open_onnx(target, inputs, provider, output)
            module = module.to(where)
        else:
            loaded, dataset = open_checkpoint(
                target, inputs, output,
                model=model, normalization=normalization, activation=activation, image_size=image_size,
            )  # fmt: skip
            module, recorded = loaded.classifier.to(where), loaded.metadata.get("threat", {})
        images = test_images(dataset, eval_samples, seed or 0, output=output, stop=stop)
        threat, sha256 = default_threat(recorded, eps, norm), sha256_file(target)
        plan = plan_report(report_to, curve, threat, images, output=output)
        report = attack_images(
            module, sha256, images, threat, suite,
            seed=seed or 0, batch_size=batch_size, device=where, state=state, output=output, stop=stop,
        )  # fmt: skip
        show_report(report, target.name, output)
        if plan:
            write_report(
                plan, report, module, target.name, sha256, images,
                device=where, batch_size=batch_size, output=output, stop=stop,
            )  # fmt: skip
        output.json("compress.attack/1", report.to_json() | ({"report": str(plan.folder)} if plan else {}))
    return 0


def _refuse(options: set[str]) -> None:
    if options:
        raise UsageError(
            f"{min(options)} says nothing about an ONNX file, which knows its own.",
            "Leave it out, or name a checkpoint.",
        )


def _open_onnx(path: Path, inputs: Inputs, provider: str, output: Output) -> tuple[nn.Module, Dataset, dict[str, Any]]:
    """The file as a module (onnxruntime decides, the importer has the gradients), its data, and its claimed threat."""
    from typing import cast

    from cli.inputs import dataset_by_record
    from exporters.claim import ClaimMismatchError, read_claim
    from exporters.differentiable import FileModel, import_graph
    from exporters.runtime import open_session
    from exporters.structure import load_untrusted

    checked = load_untrusted(path)
    session = open_session(checked.data, provider=cast(Any, provider), threads=inputs.threads)
    module = FileModel(session, import_graph(checked.model))
    try:
        claim = read_claim(checked.model)
    except ClaimMismatchError as error:
        output.warn(f"{path}: {error}.")
        claim = None
    recorded = str(claim.dataset["name"]) if claim else None
    dataset = inputs.open(lambda: dataset_by_record(recorded, session.classes), session.image_shape[1], output)
    if len(dataset.class_names) != session.classes:
        raise ClassMismatchError(
            f"{path} has {session.classes} classes, and {dataset.name} has {len(dataset.class_names)}.",
            "Name the data that it was made for with --data.",
        )
    return module, dataset, {"norm": claim.norm, "eps": claim.eps} if claim else {}
