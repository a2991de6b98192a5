"""``compress attack``: the accuracy of a checkpoint or an ONNX file under a suite of attacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import common as options
from cli.options.declaring import option, switch
from cli.output.console import Output
from compressor.core.errors import UsageError

if TYPE_CHECKING:
    from compressor.evaluation.report import Report
    from compressor.frozen import FrozenPrecision


def attack(
    target: Annotated[Path, typer.Argument(metavar="MODEL", help="A checkpoint or an ONNX file.")],
    suite: Annotated[str, option("--suite", "NAME", "Attack suite; `compress list suites` shows them.")] = "quick",
    eval_samples: options.EvalSamples = None,
    eps: options.Eps = None,
    norm: options.Norm = None,
    batch_size: Annotated[
        int | None,
        option(
            "--batch-size",
            "N",
            "Images per batch. Default: 128; with AutoAttack on a CPU 32, or 64 for bf16 proposals.",
            min=1,
        ),
    ] = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    download: options.Download = False,
    image_size: options.ImageSize = None,
    mean: options.Mean = None,
    std: options.Std = None,
    model: options.ModelName = None,
    normalization: options.Normalization = None,
    activation: options.Activation = None,
    seed: options.Seed = None,
    state: Annotated[
        Path | None, option("--state", "DIR", "Keep finished batches in DIR, and continue from them.")
    ] = None,
    proposals: Annotated[
        str,
        option(
            "--proposals",
            "fp32|bf16",
            "Precision of the attacks' search: fp32 or bf16. The model itself always decides in fp32.",
        ),
    ] = "fp32",
    reference: Annotated[
        bool, switch("--reference", "Also run the authors' AutoAttack, and count the images on which the two disagree.")
    ] = False,
    report_to: Annotated[
        Path | None,
        option(
            "--report",
            "DIR",
            "Write a folder for a reviewer: curves over eps, smallest perturbations, classes, a gallery.",
        ),
    ] = None,
    curve: Annotated[
        str | None, option("--curve", "EPS,...", "Radii of the report's curve. Default: 0 to 4 times eps.")
    ] = None,
    device: options.Device = "auto",
    provider: options.Provider = "cpu",
    threads: options.Threads = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Attack a checkpoint or an ONNX file and print one table, each accuracy with its 95 % interval."""
    from cli.output.tables import show_report
    from cli.stages.attack_report import plan_report, write_report
    from cli.stages.evaluation import attack_images, test_images
    from cli.stages.inputs import Inputs, default_threat
    from cli.stages.reference import REFERENCE_SUITE, autoattack_column, show_agreement
    from cli.stages.targets import open_attack_target
    from compressor.evaluation.suites import get_suite
    from compressor.system.interruption import stop_on_signals
    from exporters.model_file.preprocessing import parse_normalization

    chosen = get_suite(suite)
    column = autoattack_column(chosen) if reference else ""
    precision = parse_proposals(proposals)
    inputs = Inputs(data, data_dir, download, device, threads)
    with Output(as_json=as_json, quiet=quiet) as output, stop_on_signals() as stop:
        where = inputs.device()
        opened = open_attack_target(
            target, inputs, output, device=where, provider=provider, image_size=image_size,
            outside=parse_normalization(mean, std), model=model, normalization=normalization, activation=activation,
        )  # fmt: skip
        if opened.surrogate and precision != "fp32":
            raise UsageError("the gradients of an ONNX file are computed in fp32.", "Leave --proposals out.")
        images = test_images(opened.dataset, eval_samples, seed or 0, output=output, stop=stop)
        threat = default_threat(opened.recorded, eps, norm)
        plan = plan_report(report_to, curve, threat, images, output=output)

        def attacked_with(suite_name: str, kept_in: Path | None) -> Report:
            return attack_images(
                opened.model, opened.digest, images, threat, suite_name, seed=seed or 0, batch_size=batch_size,
                device=where, state=kept_in, proposals=precision, surrogate=opened.surrogate, output=output, stop=stop,
            )  # fmt: skip

        report = attacked_with(suite, state)
        document = report.to_json() | {"proposals": precision}
        show_report(report, opened.name, output)
        if reference:
            kept_in = state.with_name(f"{state.name}.reference") if state else None
            theirs = attacked_with(REFERENCE_SUITE, kept_in)
            document["reference"] = show_agreement(report, column, theirs, output).to_json()
        if plan:
            write_report(plan, report, opened, images, device=where, batch_size=batch_size, output=output, stop=stop)
            document["report"] = str(plan.folder)
        output.json("compress.attack/1", document)
    return 0


def parse_proposals(text: str) -> FrozenPrecision:
    """What ``--proposals`` means.

    Raises:
        UsageError: it is neither.
    """
    if text == "fp32":
        return "fp32"
    if text == "bf16":
        return "bf16"
    raise UsageError(f"--proposals is {text!r}.", "Use fp32 or bf16.")
