"""The options that commands share, each defined once: same name, same meaning, same default everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cli.options.declaring import option, switch
from compressor.models.user_code import allow_user_code


def allow_code(name: str | None) -> str | None:
    """The user wrote this name, so its code may run; what only a file names never gets here."""
    if name is not None:
        allow_user_code(name)
    return name


_INPUT, _COMPUTE, _OUTPUT, _TRAINING = "Input", "Computing", "Output", "Training"

Data = Annotated[
    str | None,
    option(
        "--data",
        "SPEC",
        "Dataset: cifar10, cifar100, digits or imagefolder:DIR. Default: what the model file records, else "
        "cifar10 or cifar100 by its number of classes.",
        _INPUT,
    ),
]
DataDir = Annotated[
    Path | None, option("--data-dir", "DIR", "Folder of the downloaded datasets. Default: data.", _INPUT)
]
Download = Annotated[bool, switch("--download", "Download the dataset if it is missing.", _INPUT)]
ImageSize = Annotated[
    int | None,
    option(
        "--image-size",
        "N",
        "Side of the square input in pixels. Default: what the model file records, else 32.",
        _INPUT,
    ),
]
Run = Annotated[Path | None, option("--run", "DIR", "Run folder. Default: runs/METHOD-MODEL-DATASET-sSEED.", _OUTPUT)]
Resume = Annotated[
    bool, switch("--resume", "Continue the run in the run folder, or start it if there is none.", _OUTPUT)
]
RecipeFile = Annotated[Path | None, option("--recipe", "FILE", "TOML recipe. Options override it.", _TRAINING)]
Epochs = Annotated[int | None, option("--epochs", "N", "Passes over the training images.", _TRAINING, min=1)]
BatchSize = Annotated[int | None, option("--batch-size", "N", "Images per step.", _TRAINING, min=2)]
LearningRate = Annotated[float | None, option("--learning-rate", "X", "Largest learning rate of SGD.", _TRAINING)]
AttackSteps = Annotated[int | None, option("--attack-steps", "N", "Steps of the inner maximisation.", _TRAINING, min=1)]
Schedule = Annotated[
    str | None,
    option(
        "--schedule", "NAME", "Learning rate schedule: milestones, cosine or one-cycle. Default: milestones.", _TRAINING
    ),
]
WeightAverage = Annotated[
    str | None,
    option(
        "--weight-average",
        "NAME",
        "Validate, save and export an average of the weights: none, ema or swa. Default: none.",
        _TRAINING,
    ),
]
EmaDecay = Annotated[
    float | None, option("--ema-decay", "X", "Decay of --weight-average ema. Default: 0.995.", _TRAINING)
]
Awp = Annotated[
    float | None,
    option(
        "--awp",
        "GAMMA",
        "Compute each step at weights perturbed against the loss by GAMMA times their norm, such as 0.005.",
        _TRAINING,
    ),
]
LabelSmoothing = Annotated[
    float | None,
    option(
        "--label-smoothing",
        "X",
        "Label smoothing: spread X of each label over all classes if the loss uses labels.",
        _TRAINING,
    ),
]
TrainSamples = Annotated[
    int | None, option("--train-samples", "N", "Train on N images, drawn by seed. Default: all.", _TRAINING, min=1)
]
ExtraData = Annotated[
    Path | None,
    option(
        "--extra-data",
        "FILE.npz",
        "Mix generated images into each batch: arrays image, uint8 [N, H, W, 3], and label, [N].",
        _TRAINING,
    ),
]
ExtraFraction = Annotated[
    float | None,
    option(
        "--extra-fraction",
        "X",
        "Fraction of each batch that comes from --extra-data, between 0 and 1, such as 0.7.",
        _TRAINING,
    ),
]
EvalSamples = Annotated[
    int | None,
    option("--eval-samples", "N", "Attack N test images, drawn by seed and class-balanced.", also="--samples", min=1),
]
EvidenceSamples = Annotated[int, option("--evidence-samples", "N", "Test images that go into the evidence.", min=1)]
Eps = Annotated[
    str | None, option("--eps", "EPS", "Perturbation size as a fraction of the pixel range, such as 8/255.")
]
Norm = Annotated[str | None, option("--norm", "NORM", "Norm of the perturbation: Linf or L2.")]
Suite = Annotated[str | None, option("--suite", "NAME", "Attack suite; `compress list suites` shows them.")]
Evaluate = Annotated[
    str, option("--evaluate", "WHICH", "Attack the best checkpoint, or both (best and last): best or both.", _OUTPUT)
]
Seed = Annotated[int | None, option("--seed", "N", "Seed of every random number.", min=0)]
Device = Annotated[str, option("--device", "DEVICE", "Device to compute on: auto, cpu, cuda, cuda:N or mps.", _COMPUTE)]
Provider = Annotated[str, option("--provider", "NAME", "onnxruntime's provider: cpu or cuda.", _COMPUTE)]
Threads = Annotated[
    int | None, option("--threads", "N", "CPU threads. Default: all that this process may use.", _COMPUTE, min=1)
]
Precision = Annotated[
    str | None,
    option(
        "--precision",
        "NAME",
        "Precision of the teacher and of the attacked copy: auto (measured), fp32 or bf16. Default: auto.",
        _COMPUTE,
    ),
]
OuterPrecision = Annotated[
    str | None,
    option(
        "--outer-precision",
        "NAME",
        "Precision of the passes that change the weights: fp32, bf16 or fp16 (autocast). Default: fp32.",
        _COMPUTE,
    ),
]
Accumulation = Annotated[
    int | None, option("--accumulate", "N", "Split each batch into N passes to save memory.", _COMPUTE, min=1)
]
SyncBatchNorm = Annotated[
    bool | None, switch("--sync-batchnorm", "Compute batch statistics over all processes (GPUs only).", _COMPUTE)
]
Compile = Annotated[
    bool | None, switch("--compile", "Compile the passes that change the weights (torch.compile).", _COMPUTE)
]
WarmStart = Annotated[
    bool | None,
    switch(
        "--warm-start",
        "Start each image's attack where it ended an epoch ago. Use fewer --attack-steps with it.",
        _TRAINING,
    ),
]
LabelCacheLimit = Annotated[
    str,
    option(
        "--label-cache-limit",
        "SIZE",
        "Cache the teacher's logits for later epochs and runs if they fit into SIZE, such as 8GB. 0 caches none.",
        _COMPUTE,
    ),
]
Profile = Annotated[bool, switch("--profile", "Show where a step's time goes, and write it to profile.json.", _OUTPUT)]
ModelName = Annotated[
    str | None,
    option(
        "--model",
        "NAME",
        "Architecture of the checkpoint if its keys do not tell (torchvision:NAME, timm:NAME), or your own code, "
        "which will be run (python:package.module:factory).",
        callback=allow_code,
    ),
]
TeacherModel = Annotated[
    str | None,
    option(
        "--teacher-model",
        "NAME",
        "Architecture of the teacher, as for --model of `compress attack`.",
        _INPUT,
        callback=allow_code,
    ),
]
TeacherNormalization = Annotated[
    str | None,
    option(
        "--teacher-normalization",
        "NAME",
        "Normalisation of the teacher: none, cifar10, cifar100 or half. Default: measured.",
        _INPUT,
    ),
]
TeacherActivation = Annotated[
    str | None,
    option("--teacher-activation", "NAME", "Activation of the teacher: relu or silu. Default: measured.", _INPUT),
]
Json = Annotated[bool, switch("--json", "Print exactly one JSON object on stdout.", _OUTPUT)]
Quiet = Annotated[bool, switch("--quiet", "Show no progress and no notes.", _OUTPUT, also="-q")]
Debug = Annotated[bool, switch("--debug", "Show tracebacks.", _OUTPUT)]
Normalization = Annotated[
    str | None,
    option(
        "--normalization",
        "NAME",
        "Normalisation of a third-party checkpoint: none, cifar10, cifar100 or half. Default: measured.",
    ),
]
Mean = Annotated[
    str | None,
    option(
        "--mean",
        "X[,X,X]",
        "Mean to subtract from images in [0, 1] if the ONNX file does not normalise them itself.",
        _INPUT,
    ),
]
Std = Annotated[
    str | None,
    option(
        "--std", "X[,X,X]", "Standard deviation to divide by after that. eps still refers to images in [0, 1].", _INPUT
    ),
]
Activation = Annotated[
    str | None,
    option("--activation", "NAME", "Activation of a third-party checkpoint: relu or silu. Default: measured."),
]
