"""``compress attack``: the accuracy of a checkpoint or an ONNX file under a suite of attacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import common as options
from cli.options.declaring import option, switch
from cli.options.shared_options import OutputOptions
from compressor.core.errors import UsageError
from compressor.system import launch

if TYPE_CHECKING:
    from compressor.frozen import FrozenPrecision


def attack(
    printing: OutputOptions,
    target: Annotated[Path, typer.Argument(metavar="MODEL", help="A checkpoint or an ONNX file.")],
    suite: Annotated[str, option("NAME", "Attack suite; `compress list suites` shows them.")] = "quick",
    eval_samples: options.EvalSamples = None,
    eps: options.Eps = None,
    norm: options.Norm = None,
    batch_size: Annotated[
        int | None,
        option("N", "Images per batch. Default: 128; with AutoAttack on a CPU 32, or 64 for bf16 proposals.", min=1),
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
    state: Annotated[Path | None, option("DIR", "Keep finished batches in DIR, and continue from them.")] = None,
    proposals: Annotated[
        str,
        option("fp32|bf16", "Precision of the attacks' search: fp32 or bf16. The model itself always decides in fp32."),
    ] = "fp32",
    reference: Annotated[
        bool, switch("--reference", "Also run the authors' AutoAttack, and count the images on which the two disagree.")
    ] = False,
    report_to: Annotated[
        Path | None,
        option(
            "DIR",
            "Write a folder for a reviewer: curves over eps, smallest perturbations, classes, a gallery.",
            names=("--report",),
        ),
    ] = None,
    curve: Annotated[str | None, option("EPS,...", "Radii of the report's curve. Default: 0 to 4 times eps.")] = None,
    device: options.Device = "auto",
    provider: options.Provider = "cpu",
    threads: options.Threads = None,
) -> int:
    """Attack a checkpoint or an ONNX file and print one table, each accuracy with its 95 % interval."""
    from cli.output.tables import show_agreement, show_report
    from compressor.api.attacking import AttackJob, autoattack_column
    from compressor.api.inputs import Inputs
    from compressor.api.reviewing import plan_report, write_report
    from compressor.evaluation.suites import get_suite
    from compressor.system.interruption import stop_on_signals
    from compressor.training.teacher_file import TeacherRequest
    from exporters.model_file.preprocessing import Preprocessing, parse_normalization
    from exporters.pipeline.targets import open_target_by_suffix

    chosen = get_suite(suite)
    column = autoattack_column(chosen) if reference else ""
    precision = parse_proposals(proposals)
    inputs = Inputs(data, data_dir, download, device, threads)
    with printing.open() as output, stop_on_signals() as stop:
        where = inputs.device()
        asked = TeacherRequest(target, model, normalization, activation)
        preprocessing = Preprocessing(parse_normalization(mean, std), image_size)
        opened = open_target_by_suffix(
            asked, inputs, output, device=where, provider=provider, preprocessing=preprocessing
        )
        job = AttackJob.open(opened, eval_samples, eps, norm, seed or 0, where, output, stop, batch_size, precision)
        plan = plan_report(report_to, curve, job.threat, job.images, reporter=output)
        report = job.run(suite, state, output, stop)
        document = report.to_json() | {"proposals": precision}
        show_report(report, opened.name, output)
        if reference:
            theirs, found = job.compare_with_reference(report, column, state, output, stop)
            show_agreement(report, column, theirs, found, output)
            document["reference"] = found.to_json()
        if plan:
            write_report(
                plan, report, opened, job.images,
                device=where, batch_size=batch_size, reporter=output, stop=stop,
            )  # fmt: skip
            if launch.rank() == 0:
                output.line(f"report: {plan.folder / 'report.md'}")
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
