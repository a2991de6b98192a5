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
        help="Dataset: cifar10, cifar100, digits or imagefolder:DIR. Default: what the model file records, else "
        "cifar10 or cifar100 by its number of classes.",
        rich_help_panel=_INPUT,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="Folder of the downloaded datasets. Default: data.", rich_help_panel=_INPUT
    ),
]
Download = Annotated[
    bool, typer.Option("--download", help="Download the dataset if it is missing.", rich_help_panel=_INPUT)
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
        "--resume", help="Continue the run in the run folder, or start it if there is none.", rich_help_panel=_OUTPUT
    ),
]
RecipeFile = Annotated[
    Path | None,
    typer.Option("--recipe", metavar="FILE", help="TOML recipe. Options override it.", rich_help_panel=_TRAINING),
]
Epochs = Annotated[
    int | None,
    typer.Option("--epochs", min=1, metavar="N", help="Passes over the training images.", rich_help_panel=_TRAINING),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=2, metavar="N", help="Images per step.", rich_help_panel=_TRAINING)
]
LearningRate = Annotated[
    float | None,
    typer.Option("--learning-rate", metavar="X", help="Largest learning rate of SGD.", rich_help_panel=_TRAINING),
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
        help="Learning rate schedule: milestones, cosine or one-cycle. Default: milestones.",
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
        "--ema-decay", metavar="X", help="Decay of --weight-average ema. Default: 0.995.", rich_help_panel=_TRAINING
    ),
]
Awp = Annotated[
    float | None,
    typer.Option(
        "--awp",
        metavar="GAMMA",
        help="Compute each step at weights perturbed against the loss by GAMMA times their norm, such as 0.005.",
        rich_help_panel=_TRAINING,
    ),
]
LabelSmoothing = Annotated[
    float | None,
    typer.Option(
        "--label-smoothing",
        metavar="X",
        help="Label smoothing: spread X of each label over all classes if the loss uses labels.",
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
        help="Fraction of each batch that comes from --extra-data, between 0 and 1, such as 0.7.",
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
Norm = Annotated[str | None, typer.Option("--norm", metavar="NORM", help="Norm of the perturbation: Linf or L2.")]
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
Seed = Annotated[int | None, typer.Option("--seed", min=0, metavar="N", help="Seed of every random number.")]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="Device to compute on: auto, cpu, cuda, cuda:N or mps.",
        rich_help_panel=_COMPUTE,
    ),
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
        help="CPU threads. Default: all that this process may use.",
        rich_help_panel=_COMPUTE,
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="NAME",
        help="Precision of the teacher and of the attacked copy: auto (measured), fp32 or bf16. Default: auto.",
        rich_help_panel=_COMPUTE,
    ),
]
OuterPrecision = Annotated[
    str | None,
    typer.Option(
        "--outer-precision",
        metavar="NAME",
        help="Precision of the passes that change the weights: fp32, bf16 or fp16 (autocast). Default: fp32.",
        rich_help_panel=_COMPUTE,
    ),
]
Accumulation = Annotated[
    int | None,
    typer.Option(
        "--accumulate",
        min=1,
        metavar="N",
        help="Split each batch into N passes to save memory.",
        rich_help_panel=_COMPUTE,
    ),
]
SyncBatchNorm = Annotated[
    bool | None,
    typer.Option(
        "--sync-batchnorm", help="Compute batch statistics over all processes (GPUs only).", rich_help_panel=_COMPUTE
    ),
]
Compile = Annotated[
    bool | None,
    typer.Option(
        "--compile", help="Compile the passes that change the weights (torch.compile).", rich_help_panel=_COMPUTE
    ),
]
WarmStart = Annotated[
    bool | None,
    typer.Option(
        "--warm-start",
        help="Start each image's attack where it ended an epoch ago. Use fewer --attack-steps with it.",
        rich_help_panel=_TRAINING,
    ),
]
LabelCacheLimit = Annotated[
    str,
    typer.Option(
        "--label-cache-limit",
        metavar="SIZE",
        help="Cache the teacher's logits for later epochs and runs if they fit into SIZE, such as 8GB. 0 caches none.",
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
        help="Architecture of the checkpoint if its keys do not tell (torchvision:NAME, timm:NAME), or your own code, "
        "which will be run (python:package.module:factory).",
    ),
]
TeacherModel = Annotated[
    str | None,
    typer.Option(
        "--teacher-model",
        metavar="NAME",
        callback=allow_code,
        help="Architecture of the teacher, as for --model of `compress attack`.",
        rich_help_panel=_INPUT,
    ),
]
TeacherNormalization = Annotated[
    str | None,
    typer.Option(
        "--teacher-normalization",
        metavar="NAME",
        help="Normalisation of the teacher: none, cifar10, cifar100 or half. Default: measured.",
        rich_help_panel=_INPUT,
    ),
]
TeacherActivation = Annotated[
    str | None,
    typer.Option(
        "--teacher-activation",
        metavar="NAME",
        help="Activation of the teacher: relu or silu. Default: measured.",
        rich_help_panel=_INPUT,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout.", rich_help_panel=_OUTPUT)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no notes.", rich_help_panel=_OUTPUT)]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.", rich_help_panel=_OUTPUT)]
Normalization = Annotated[
    str | None,
    typer.Option(
        "--normalization",
        metavar="NAME",
        help="Normalisation of a third-party checkpoint: none, cifar10, cifar100 or half. Default: measured.",
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean",
        metavar="X[,X,X]",
        help="Mean to subtract from images in [0, 1] if the ONNX file does not normalise them itself.",
        rich_help_panel=_INPUT,
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        "--std",
        metavar="X[,X,X]",
        help="Standard deviation to divide by after that. eps still refers to images in [0, 1].",
        rich_help_panel=_INPUT,
    ),
]
Activation = Annotated[
    str | None,
    typer.Option(
        "--activation", metavar="NAME", help="Activation of a third-party checkpoint: relu or silu. Default: measured."
    ),
]
