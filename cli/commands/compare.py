"""``compress compare``: finished runs side by side, in the layout of a paper's table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cli.options import common as options
from cli.options.declaring import option
from cli.options.shared_options import OutputOptions
from compressor.core.errors import UsageError

_MEASURE = "Measuring what is missing: with --evaluate"


def compare(
    printing: OutputOptions,
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    evaluate: Annotated[
        str | None,
        option("WHICH", "Attack the checkpoints that were not measured yet: best, or both (best and last).", _MEASURE),
    ] = None,
    suite: Annotated[
        str | None,
        option("NAME", "Attack suite. Default: what the first run was measured with, else default.", _MEASURE),
    ] = None,
    eval_samples: Annotated[
        int | None,
        option(
            "N",
            "Number of test images. Default: as many as for the first run, else 1,000.",
            _MEASURE,
            names=("--eval-samples", "--samples"),
            min=1,
        ),
    ] = None,
    eps: Annotated[
        str | None,
        option("EPS", "Perturbation size, such as 8/255. Default: what each run was trained against.", _MEASURE),
    ] = None,
    model: Annotated[
        list[str] | None,
        option(
            "NAME", "Your own code that defines a run's network: python:package.module:factory. Repeatable.", _MEASURE
        ),
    ] = None,
    against: Annotated[Path | None, option("RUN", "Run to compare the others with. Default: the first.")] = None,
    layout: Annotated[
        str | None,
        option(
            "NAME",
            "Format: table, markdown, csv or json. Default: by the suffix of --output, else table.",
            names=("--format",),
        ),
    ] = None,
    to: Annotated[
        Path | None, option("FILE", "Write the comparison to FILE instead of printing it.", names=("--output", "-o"))
    ] = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    download: options.Download = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> int:
    """Lay finished runs side by side: best and last checkpoint, every attack, over seeds, with tests."""
    from cli.output.comparison_formats import SCHEMA, format_by, show_comparison, to_text
    from compressor.api.inputs import Inputs
    from compressor.api.measuring import MeasurementRequest, measure_runs
    from compressor.comparison import compare_runs, open_run
    from compressor.models.user_code import allow_user_code
    from compressor.system.files import write_text
    from compressor.system.interruption import stop_on_signals

    chosen = format_by(layout, to.suffix if to else None)
    printing = replace(printing, as_json=printing.as_json or (chosen == "json" and to is None))
    _check_measuring(evaluate, {"--suite": suite, "--eval-samples": eval_samples, "--eps": eps, "--model": model})
    for name in model or ():
        allow_user_code(name)
    with printing.open() as output, stop_on_signals() as stop:
        opened = [open_run(path) for path in runs]
        baseline = open_run(against) if against else None
        if evaluate is not None:
            inputs = Inputs(data, data_dir, download, device, threads)
            asked = MeasurementRequest.parse(evaluate, suite, eval_samples, eps)
            measure_runs([*opened, *([baseline] if baseline else [])], asked, inputs, reporter=output, stop=stop)
        comparison = compare_runs(opened, baseline)
        for warning in comparison.warnings:
            output.warn(warning)
        if to is not None:
            write_text(to, to_text(comparison, chosen))
            output.note(f"written: {to}")
        elif chosen == "table":
            show_comparison(comparison, output)
        elif not printing.as_json:
            output.text(to_text(comparison, chosen))
        output.json(SCHEMA, comparison.to_json())
    return 0


def _check_measuring(evaluate: str | None, given: dict[str, object]) -> None:
    unused = [name for name, value in given.items() if value is not None]
    if evaluate is None and unused:
        raise UsageError(f"{unused[0]} says how to measure, and nothing is to be measured.", "Add --evaluate both.")
