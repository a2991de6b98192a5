"""``compress distill``: teacher, student, attacks, ONNX, verdict: the whole way."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cli import options
from cli.output import Output
from cli.shared_options import TrainingOptions, with_options


@with_options(TrainingOptions)
def distill(
    shared: TrainingOptions,
    teacher: Annotated[Path, typer.Option("--teacher", metavar="FILE", help="The robust teacher's checkpoint.")],
    student: Annotated[
        str | None, typer.Option("--student", metavar="NAME", help="See `compress list models`. Default: mobilenetv2.")
    ] = None,
    method: Annotated[str | None, typer.Option("--method", metavar="NAME", help="Default: rslad.")] = None,
    teacher_model: options.TeacherModel = None,
    teacher_normalization: options.TeacherNormalization = None,
    teacher_activation: options.TeacherActivation = None,
    evidence_samples: options.EvidenceSamples = 256,
) -> int:
    """Distil a robust teacher into a small student, attack it, export it, and verify the exported file."""
    from cli.evaluation import wanted_by
    from cli.pipeline import Distillation, distill_run
    from cli.stages import Extras
    from compressor.training.interruption import stop_on_signals
    from compressor.training.session import TeacherRequest

    request = Distillation(
        teacher=TeacherRequest(teacher, teacher_model, teacher_normalization, teacher_activation),
        inputs=shared.inputs(shared.data),
        recipe_file=shared.recipe,
        flags={"method": method, "model": student, **shared.recipe_flags()},
        run=shared.run,
        resume=shared.resume,
        suite=shared.suite or "default",
        eval_samples=shared.eval_samples,
        evidence_samples=evidence_samples,
        evaluate=wanted_by(shared.evaluate),
        extras=Extras.parse(shared.label_cache_limit, profile=shared.profile),
    )
    with Output(as_json=shared.as_json, quiet=shared.quiet) as output, stop_on_signals() as stop:
        done = distill_run(request, output=output, stop=stop)
        if done is None:  # one of several processes, and not the first
            return 0
        output.json("compress.distill/1", done.to_json())
        output.line(shlex.join(["compress", "verify", str(done.trained.run.onnx)]))
    return done.verdict.exit_code
