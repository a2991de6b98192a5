"""The options that commands share, each defined once: same name, same meaning, same default everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compressor.models.user_code import allow_user_code


def allow_code(name: str | None) -> str | None:
    """The user wrote this name, so its code may run; what only a file names never gets here."""
    if name is not None:
        allow_user_code(name)
    return name


_INPUT, _COMPUTE, _OUTPUT, _TRAINING = "Input", "Computing", "Output", "Training"

Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="SPEC",
        help="cifar10, cifar100, digits or imagefolder:DIR. Default: what the model file records, else cifar10 or "
        "cifar100 by its number of classes.",
        rich_help_panel=_INPUT,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="Where downloaded datasets lie. Default: data.", rich_help_panel=_INPUT
    ),
]
Download = Annotated[
    bool, typer.Option("--download", help="Fetch the dataset if it is not there.", rich_help_panel=_INPUT)
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        "--image-size",
        metavar="N",
        help="Side of the square input in pixels. Default: what the model file records, else 32.",
        rich_help_panel=_INPUT,
    ),
]
Run = Annotated[
    Path | None,
    typer.Option(
        "--run", metavar="DIR", help="Run folder. Default: runs/METHOD-MODEL-DATASET-sSEED.", rich_help_panel=_OUTPUT
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on with the run folder, or start it if it is not there.", rich_help_panel=_OUTPUT
    ),
]
RecipeFile = Annotated[
    Path | None,
    typer.Option("--recipe", metavar="FILE", help="TOML recipe; flags win over it.", rich_help_panel=_TRAINING),
]
Epochs = Annotated[
    int | None,
    typer.Option("--epochs", min=1, metavar="N", help="Passes over the training images.", rich_help_panel=_TRAINING),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=2, metavar="N", help="Images a step.", rich_help_panel=_TRAINING)
]
LearningRate = Annotated[
    float | None,
    typer.Option("--learning-rate", metavar="X", help="Of SGD, the largest.", rich_help_panel=_TRAINING),
]
AttackSteps = Annotated[
    int | None,
    typer.Option(
        "--attack-steps", min=1, metavar="N", help="Steps of the inner maximisation.", rich_help_panel=_TRAINING
    ),
]
Schedule = Annotated[
    str | None,
    typer.Option(
        "--schedule",
        metavar="NAME",
        help="Of the learning rate: milestones, cosine or one-cycle. Default: milestones.",
        rich_help_panel=_TRAINING,
    ),
]
WeightAverage = Annotated[
    str | None,
    typer.Option(
        "--weight-average",
        metavar="NAME",
        help="Validate, save and export an average of the weights: none, ema or swa. Default: none.",
        rich_help_panel=_TRAINING,
    ),
]
EmaDecay = Annotated[
    float | None,
    typer.Option(
        "--ema-decay", metavar="X", help="Of --weight-average ema. Default: 0.995.", rich_help_panel=_TRAINING
    ),
]
Awp = Annotated[
    float | None,
    typer.Option(
        "--awp",
        metavar="GAMMA",
        help="Take each step at weights moved against the loss by GAMMA of their norm, such as 0.005.",
        rich_help_panel=_TRAINING,
    ),
]
LabelSmoothing = Annotated[
    float | None,
    typer.Option(
        "--label-smoothing",
        metavar="X",
        help="Spread X of each label over all classes, where a loss uses labels.",
        rich_help_panel=_TRAINING,
    ),
]
TrainSamples = Annotated[
    int | None,
    typer.Option(
        "--train-samples",
        min=1,
        metavar="N",
        help="Train on N images, drawn by seed. Default: all.",
        rich_help_panel=_TRAINING,
    ),
]
ExtraData = Annotated[
    Path | None,
    typer.Option(
        "--extra-data",
        metavar="FILE.npz",
        help="Mix generated images into each batch: arrays image, uint8 [N, H, W, 3], and label, [N].",
        rich_help_panel=_TRAINING,
    ),
]
ExtraFraction = Annotated[
    float | None,
    typer.Option(
        "--extra-fraction",
        metavar="X",
        help="How much of each batch comes from --extra-data, between 0 and 1, such as 0.7.",
        rich_help_panel=_TRAINING,
    ),
]
EvalSamples = Annotated[
    int | None,
    typer.Option(
        "--eval-samples",
        "--samples",
        min=1,
        metavar="N",
        help="Attack N test images, drawn by seed and class-balanced.",
    ),
]
EvidenceSamples = Annotated[
    int, typer.Option("--evidence-samples", min=1, metavar="N", help="Test images that go into the evidence.")
]
Eps = Annotated[
    str | None,
    typer.Option("--eps", metavar="EPS", help="Perturbation size as a fraction of the pixel range, such as 8/255."),
]
Norm = Annotated[str | None, typer.Option("--norm", metavar="NORM", help="Linf or L2.")]
Suite = Annotated[
    str | None,
    typer.Option("--suite", metavar="NAME", help="Attack suite; `compress list suites` shows them."),
]
Evaluate = Annotated[
    str,
    typer.Option(
        "--evaluate",
        metavar="WHICH",
        help="Attack the best checkpoint, or both (best and last): best or both.",
        rich_help_panel=_OUTPUT,
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, metavar="N", help="Names every random number.")]
Device = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=_COMPUTE)
]
Provider = Annotated[
    str,
    typer.Option("--provider", metavar="NAME", help="onnxruntime's provider: cpu or cuda.", rich_help_panel=_COMPUTE),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        metavar="N",
        help="CPU threads. Default: all this process may use.",
        rich_help_panel=_COMPUTE,
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="NAME",
        help="Of the frozen teacher and of the copy that is attacked: auto (measured), fp32 or bf16. Default: auto.",
        rich_help_panel=_COMPUTE,
    ),
]
OuterPrecision = Annotated[
    str | None,
    typer.Option(
        "--outer-precision",
        metavar="NAME",
        help="Of the passes that change the weights: fp32, bf16 or fp16 (autocast). Default: fp32.",
        rich_help_panel=_COMPUTE,
    ),
]
Accumulation = Annotated[
    int | None,
    typer.Option(
        "--accumulate",
        min=1,
        metavar="N",
        help="Work through a batch in N passes, for less memory.",
        rich_help_panel=_COMPUTE,
    ),
]
SyncBatchNorm = Annotated[
    bool | None,
    typer.Option("--sync-batchnorm", help="Batch statistics over all processes (GPUs only).", rich_help_panel=_COMPUTE),
]
Compile = Annotated[
    bool | None,
    typer.Option("--compile", help="Run the passes that change the weights compiled.", rich_help_panel=_COMPUTE),
]
WarmStart = Annotated[
    bool | None,
    typer.Option(
        "--warm-start",
        help="Begin each image's attack where it ended an epoch ago; take fewer --attack-steps with it.",
        rich_help_panel=_TRAINING,
    ),
]
LabelCacheLimit = Annotated[
    str,
    typer.Option(
        "--label-cache-limit",
        metavar="SIZE",
        help="Keep the teacher's answers for later epochs and runs if all of them fit into SIZE; 0 keeps none.",
        rich_help_panel=_COMPUTE,
    ),
]
Profile = Annotated[
    bool,
    typer.Option(
        "--profile", help="Show where a step's time goes, and write it to profile.json.", rich_help_panel=_OUTPUT
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        callback=allow_code,
        help="The checkpoint's architecture, where its keys do not tell (torchvision:NAME, timm:NAME) or where it is "
        "code that you trust (python:package.module:factory).",
    ),
]
TeacherModel = Annotated[
    str | None,
    typer.Option(
        "--teacher-model",
        metavar="NAME",
        callback=allow_code,
        help="The teacher's architecture, as for --model of `compress attack`.",
        rich_help_panel=_INPUT,
    ),
]
TeacherNormalization = Annotated[
    str | None,
    typer.Option(
        "--teacher-normalization",
        metavar="NAME",
        help="none, cifar10, cifar100 or half. Default: measured.",
        rich_help_panel=_INPUT,
    ),
]
TeacherActivation = Annotated[
    str | None,
    typer.Option(
        "--teacher-activation", metavar="NAME", help="relu or silu. Default: measured.", rich_help_panel=_INPUT
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.", rich_help_panel=_OUTPUT)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes.", rich_help_panel=_OUTPUT)]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.", rich_help_panel=_OUTPUT)]
Normalization = Annotated[
    str | None,
    typer.Option(
        "--normalization",
        metavar="NAME",
        help="Of a foreign checkpoint: none, cifar10, cifar100 or half. Default: measured.",
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean",
        metavar="X[,X,X]",
        help="Of an ONNX file that is normalised outside: what is subtracted from images in [0, 1].",
        rich_help_panel=_INPUT,
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        "--std",
        metavar="X[,X,X]",
        help="What they are divided by after that; eps stays one of images in [0, 1].",
        rich_help_panel=_INPUT,
    ),
]
Activation = Annotated[
    str | None,
    typer.Option("--activation", metavar="NAME", help="Of a foreign checkpoint: relu or silu. Default: measured."),
]
