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


INPUT, COMPUTE, OUTPUT, TRAINING = "Input", "Computing", "Output", "Training"

Data = Annotated[
    str | None,
    option(
        "SPEC",
        "Dataset: cifar10, cifar100, digits or imagefolder:DIR. Default: what the model file records, else "
        "cifar10 or cifar100 by its number of classes.",
        INPUT,
    ),
]
DataDir = Annotated[Path | None, option("DIR", "Folder of the downloaded datasets. Default: data.", INPUT)]
Download = Annotated[bool, switch("--download", "Download the dataset if it is missing.", INPUT)]
ImageSize = Annotated[
    int | None,
    option("N", "Side of the square input in pixels. Default: what the model file records, else 32.", INPUT),
]
EvalSamples = Annotated[
    int | None,
    option(
        "N", "Attack N test images, drawn by seed and class-balanced.", names=("--eval-samples", "--samples"), min=1
    ),
]
EvidenceSamples = Annotated[int, option("N", "Test images that go into the evidence.", min=1)]
Eps = Annotated[str | None, option("EPS", "Perturbation size as a fraction of the pixel range, such as 8/255.")]
Norm = Annotated[str | None, option("NORM", "Norm of the perturbation: Linf or L2.")]
Suite = Annotated[str | None, option("NAME", "Attack suite; `compress list suites` shows them.")]
Seed = Annotated[int | None, option("N", "Seed of every random number.", min=0)]
Device = Annotated[str, option("DEVICE", "Device to compute on: auto, cpu, cuda, cuda:N or mps.", COMPUTE)]
Provider = Annotated[str, option("NAME", "onnxruntime's provider: cpu or cuda.", COMPUTE)]
Threads = Annotated[int | None, option("N", "CPU threads. Default: all that this process may use.", COMPUTE, min=1)]
ModelName = Annotated[
    str | None,
    option(
        "NAME",
        "Architecture of the checkpoint if its keys do not tell (torchvision:NAME, timm:NAME), or your own code, "
        "which will be run (python:package.module:factory).",
        callback=allow_code,
    ),
]
TeacherModel = Annotated[
    str | None,
    option("NAME", "Architecture of the teacher, as for --model of `compress attack`.", INPUT, callback=allow_code),
]
TeacherNormalization = Annotated[
    str | None,
    option("NAME", "Normalisation of the teacher: none, cifar10, cifar100 or half. Default: measured.", INPUT),
]
TeacherActivation = Annotated[
    str | None, option("NAME", "Activation of the teacher: relu or silu. Default: measured.", INPUT)
]
Normalization = Annotated[
    str | None,
    option("NAME", "Normalisation of a third-party checkpoint: none, cifar10, cifar100 or half. Default: measured."),
]
Mean = Annotated[
    str | None,
    option("X[,X,X]", "Mean to subtract from images in [0, 1] if the ONNX file does not normalise them itself.", INPUT),
]
Std = Annotated[
    str | None,
    option("X[,X,X]", "Standard deviation to divide by after that. eps still refers to images in [0, 1].", INPUT),
]
Activation = Annotated[
    str | None, option("NAME", "Activation of a third-party checkpoint: relu or silu. Default: measured.")
]
