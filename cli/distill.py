"""``compress distill``: teacher, student, attacks, ONNX, verdict: the whole way."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from cli import options
from cli.output import Output


def distill(
    teacher: Annotated[Path, typer.Option("--teacher", metavar="FILE", help="The robust teacher's checkpoint.")],
    student: Annotated[
        str | None, typer.Option("--student", metavar="NAME", help="See `compress list models`. Default: mobilenetv2.")
    ] = None,
    method: Annotated[str | None, typer.Option("--method", metavar="NAME", help="Default: rslad.")] = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    download: options.Download = False,
    image_size: options.ImageSize = None,
    teacher_model: options.TeacherModel = None,
    teacher_normalization: options.TeacherNormalization = None,
    teacher_activation: options.TeacherActivation = None,
    run: options.Run = None,
    resume: options.Resume = False,
    recipe: options.RecipeFile = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    attack_steps: options.AttackSteps = None,
    train_samples: options.TrainSamples = None,
    eval_samples: options.EvalSamples = None,
    evidence_samples: options.EvidenceSamples = 256,
    eps: options.Eps = None,
    suite: options.Suite = None,
    seed: options.Seed = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Distil a robust teacher into a small student, attack it, export it, and verify the exported file."""
    from cli.inputs import Inputs
    from cli.pipeline import Distillation, distill_run
    from compressor.training.interruption import stop_on_signals
    from compressor.training.session import TeacherRequest

    flags = {
        "method": method, "model": student, "image_size": image_size, "epochs": epochs, "batch_size": batch_size,
        "learning_rate": learning_rate, "attack_steps": attack_steps, "train_samples": train_samples, "eps": eps,
        "seed": seed,
    }  # fmt: skip
    request = Distillation(
        teacher=TeacherRequest(teacher, teacher_model, teacher_normalization, teacher_activation),
        inputs=Inputs(data, data_dir, download, device, threads),
        recipe_file=recipe,
        flags=flags,
        run=run,
        resume=resume,
        suite=suite or "default",
        eval_samples=eval_samples,
        evidence_samples=evidence_samples,
    )
    with Output(as_json=as_json, quiet=quiet) as output, stop_on_signals() as stop:
        done = distill_run(request, output=output, stop=stop)
        output.json("compress.distill/1", done.to_json())
        output.line(shlex.join(["compress", "verify", str(done.trained.run.onnx)]))
    return done.verdict.exit_code
