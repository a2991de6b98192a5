"""``compress train``: a teacher or a baseline, without a teacher file."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from cli import options
from cli.output import Output


def train(
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="See `compress list models`. Default: resnet18.")
    ] = None,
    method: Annotated[str | None, typer.Option("--method", metavar="NAME", help="Default: sat.")] = None,
    data: options.Data = None,
    data_dir: options.DataDir = None,
    download: options.Download = False,
    image_size: options.ImageSize = None,
    run: options.Run = None,
    resume: options.Resume = False,
    recipe: options.RecipeFile = None,
    epochs: options.Epochs = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    attack_steps: options.AttackSteps = None,
    train_samples: options.TrainSamples = None,
    eval_samples: options.EvalSamples = None,
    eps: options.Eps = None,
    suite: options.Suite = None,
    seed: options.Seed = None,
    device: options.Device = "auto",
    threads: options.Threads = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Train a model without a teacher: natural, SAT, ..."""
    from cli.inputs import Inputs
    from cli.recipes import resolve_recipe_file
    from cli.stages import check_before_training, evaluate_run, make_recipe, run_folder, train_run
    from compressor.training.interruption import stop_on_signals
    from compressor.types import DatasetSpec

    flags = {
        "method": method, "model": model, "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate,
        "attack_steps": attack_steps, "train_samples": train_samples, "eps": eps, "seed": seed,
        "image_size": image_size,
    }  # fmt: skip
    spec = DatasetSpec.parse(data or "cifar10")
    settings = make_recipe("sat", "resnet18", resolve_recipe_file(recipe), flags, spec.name)
    inputs = Inputs(str(spec), data_dir, download, device, threads)
    with Output(as_json=as_json, quiet=quiet) as output, stop_on_signals() as stop:
        where = inputs.device()
        dataset = inputs.open(lambda: str(spec), settings.image_size, output)
        check_before_training(dataset, suite or "default", run_folder(settings, dataset, run), resume=resume)
        trained = train_run(settings, dataset, inputs, None, run=run, resume=resume, output=output, stop=stop)
        report = evaluate_run(trained, suite or "default", eval_samples, device=where, output=output, stop=stop)
        output.json("compress.train/1", trained.to_json(report))
        output.line(shlex.join(["compress", "export", str(trained.run.best), *inputs.words()]))
    return 0
