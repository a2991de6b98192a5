"""What the paper's recipe would take on common GPUs: an estimate from counted operations, in Markdown.

python benchmarks/paper_recipe.py

No hour here is measured: this project has run on no GPU. Operations are counted (compressor/models/costs.py); peaks and
bandwidths are the vendor's; how much of them training reaches is an assumption, taken from throughputs that the vendor
has published. The recipe: RSLAD, 300 epochs of 50,000 images at 32 x 32, PGD-10, a WideResNet-34-10 as the teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torchvision.models
from torch import nn

from compressor.core.types import ModelSpec
from compressor.models import costs
from compressor.models.classifier import build_empty_network
from compressor.numerics.augment import variant_count
from compressor.runs.recipe import Recipe

IMAGES_AN_EPOCH = 50_000
TEACHER = "wideresnet-34-10"

Unit = Literal["fp32", "tf32", "16-bit"]
Kind = Literal["dense", "depthwise"]
Range = tuple[float, float]

STUDENTS: dict[str, Kind] = {"resnet18": "dense", "mobilenetv2": "depthwise"}


@dataclass(frozen=True)
class GPU:
    """Peaks in TFLOP/s, dense (not the doubled figures for 2:4 sparsity), accumulated in fp32; bandwidth in TB/s."""

    name: str
    fp32: float
    tf32: float | None
    half: float
    has_bf16: bool
    bandwidth: float
    source: str

    @property
    def single(self) -> Unit:
        """What an fp32 convolution runs on: torch lets cuDNN use TF32 for it where the card has it."""
        return "fp32" if self.tf32 is None else "tf32"

    def peak(self, unit: Unit) -> float:
        """The peak of one kind of arithmetic."""
        return {"fp32": self.fp32, "tf32": self.tf32 or 0.0, "16-bit": self.half}[unit]


GPUS = (
    GPU("T4", 8.1, None, 65, False, 0.320, "T4 data sheet"),
    GPU("V100 SXM2", 15.7, None, 125, False, 0.900, "V100 data sheet"),
    GPU("RTX 3090", 35.6, 35.6, 71, True, 0.936, "GA102 white paper, appendix A"),
    GPU("L4", 30.3, 60, 121, True, 0.300, "L4 data sheet, tensor figures halved (it gives sparse ones)"),
    GPU("RTX 4090", 82.6, 82.6, 165.2, True, 1.008, "Ada white paper, appendix A"),
    GPU("A100 SXM 80 GB", 19.5, 156, 312, True, 2.039, "A100 data sheet"),
    GPU("H100 SXM", 67, 495, 989, True, 3.350, "H100 data sheet, tensor figures halved (it gives sparse ones)"),
)

# The two assumptions on which every hour below rests; the table of published throughputs says where they come from.
# Dense convolutions: a share of the peak. Wider than the published figures, since those are of two cards, and of a
# ResNet-50, whose convolutions do less arithmetic for each value they move than a WideResNet's.
SHARE_OF_PEAK: dict[Unit, Range] = {"fp32": (0.30, 0.60), "tf32": (0.10, 0.40), "16-bit": (0.10, 0.40)}
# Depthwise networks wait for memory: their speed follows bandwidth, as FLOP for each byte, and the peak hardly matters.
FLOP_A_BYTE: dict[Unit, Range] = {"fp32": (1.0, 2.0), "tf32": (1.0, 2.0), "16-bit": (2.0, 4.0)}


@dataclass(frozen=True)
class Published:
    """A training throughput on one GPU at 224 x 224: NVIDIA/DeepLearningExamples, PyTorch/Classification/ConvNets."""

    model: str
    kind: Kind
    gpu: str
    unit: Unit
    images_a_second: float


PUBLISHED = (
    Published("resnet50", "dense", "V100 SXM2", "fp32", 367),
    Published("resnet50", "dense", "V100 SXM2", "16-bit", 1200),
    Published("resnet50", "dense", "A100 SXM 80 GB", "tf32", 938),
    Published("resnet50", "dense", "A100 SXM 80 GB", "16-bit", 2470),
    Published("efficientnet_b0", "depthwise", "V100 SXM2", "fp32", 655),
    Published("efficientnet_b0", "depthwise", "V100 SXM2", "16-bit", 1301),
    Published("efficientnet_b0", "depthwise", "A100 SXM 80 GB", "tf32", 1078),
    Published("efficientnet_b0", "depthwise", "A100 SXM 80 GB", "16-bit", 2489),
)


def speed(gpu: GPU, kind: Kind, unit: Unit) -> Range:
    """TFLOP/s, least and most, that training is assumed to reach."""
    scale, (low, high) = (
        (gpu.peak(unit), SHARE_OF_PEAK[unit]) if kind == "dense" else (gpu.bandwidth, FLOP_A_BYTE[unit])
    )
    return scale * low, scale * high


def hours(gpu: GPU, cost: costs.StepCost, student: Kind, *, half: bool, images: int) -> Range:
    """Hours, fewest and most, that ``images`` training steps of one image take on one GPU.

    Args:
        gpu: its peaks and bandwidth.
        cost: operations for one image.
        student: the kind of network that the attack and the outer step run; the teacher is dense.
        half: whether to use 16 bits wherever the toolkit can: the outer step on every card, teacher and attack where
            there is bf16.
        images: over all epochs.
    """
    frozen: Unit = "16-bit" if half and gpu.has_bf16 else gpu.single
    outer: Unit = "16-bit" if half else gpu.single
    parts = (
        (cost.teacher, speed(gpu, "dense", frozen)),
        (cost.attack, speed(gpu, student, frozen)),
        (cost.outer, speed(gpu, student, outer)),
    )
    most, fewest = (sum(operations / (rate[end] * 1e12) for operations, rate in parts) for end in (0, 1))
    return fewest * images / 3600, most * images / 3600


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right of the first column's text."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def span(low_high: Range) -> str:
    """A range as text: one decimal below ten."""
    low, high = (f"{value:.1f}" if value < 9.95 else f"{value:,.0f}" for value in low_high)
    return f"{low} to {high}"


def percent(low_high: Range) -> str:
    """A range of shares as text."""
    return " to ".join(f"{value:.0%}".replace("%", " %") for value in low_high)


def operations_table() -> str:
    """Each network's operations for one CIFAR image, in units of 10^9."""
    rows = []
    for name in (TEACHER, *STUDENTS):
        model = build_empty_network(ModelSpec(name, 10))
        counts = (
            count(model, 32)
            for count in (costs.forward_operations, costs.input_gradient_operations, costs.training_operations)
        )
        rows.append([f"`{name}`", *(f"{count / 1e9:.2f}" for count in counts)])
    return table(["GFLOP an image", "forward", "and backward to the image", "and backward to the weights"], rows)


def steps_table(found: dict[str, costs.StepCost]) -> str:
    """Where one image's operations go in one RSLAD step."""
    rows = [
        [f"`{name}`", *(f"{part / 1e9:.1f}" for part in (cost.teacher, cost.attack, cost.outer, cost.total))]
        for name, cost in found.items()
    ]
    return table(["GFLOP an image and step", "teacher, if asked", "attack", "outer", "together"], rows)


def published_table() -> str:
    """What share of the peak, and how much for each byte, the vendor's own throughputs come to, by our counter."""
    gpus = {gpu.name: gpu for gpu in GPUS}
    rows = []
    for entry in PUBLISHED:
        with torch.device("meta"):
            model: nn.Module = getattr(torchvision.models, entry.model)()
        gpu = gpus[entry.gpu]
        reached = costs.training_operations(model, 224) * entry.images_a_second / 1e12
        rows.append(
            [
                f"{entry.model} ({entry.kind}), {entry.gpu}",
                entry.unit,
                f"{entry.images_a_second:,}",
                f"{reached:.1f}",
                f"{100 * reached / gpu.peak(entry.unit):.1f} %",
                f"{reached / gpu.bandwidth:.1f}",
            ]
        )
    header = ["training, published", "arithmetic", "images/s", "TFLOP/s", "share of the peak", "FLOP a byte"]
    return table(header, rows)


def assumptions_table() -> str:
    """The assumptions."""
    units: tuple[Unit, ...] = ("fp32", "tf32", "16-bit")
    rows = [
        ["dense: share of the peak", *(percent(SHARE_OF_PEAK[unit]) for unit in units)],
        [
            "depthwise: FLOP a byte",
            *(f"{low:.0f} to {high:.0f}" for low, high in (FLOP_A_BYTE[unit] for unit in units)),
        ],
    ]
    return table(["assumed", "fp32 units", "TF32 tensor cores", "16-bit tensor cores"], rows)


def peaks_table() -> str:
    """The vendor's figures."""
    rows = [
        [
            gpu.name,
            f"{gpu.fp32}",
            f"{gpu.tf32 or 'none'}",
            f"{gpu.half}",
            "fp16, bf16" if gpu.has_bf16 else "fp16",
            f"{1000 * gpu.bandwidth:,.0f}",
            gpu.source,
        ]
        for gpu in GPUS
    ]
    return table(["TFLOP/s, dense", "fp32", "TF32", "16-bit", "of these", "GB/s", "source"], rows)


def hours_table(cost: costs.StepCost, student: Kind, asked: float, images: int) -> str:
    """GPU-hours of the whole training, for each card and each state of the label cache."""
    columns = ((False, 1.0), (True, 1.0), (True, asked), (True, 0.0))
    rows = []
    for gpu in GPUS:
        cells = []
        for half, share in columns:
            part = costs.StepCost(cost.teacher * share, cost.attack, cost.outer)
            cells.append(span(hours(gpu, part, student, half=half, images=images)))
        rows.append([gpu.name, *cells])
    header = [
        "GPU-hours, estimated",
        "fp32, no cache",
        "16-bit, no cache",
        "16-bit, cache filling",
        "16-bit, cache full",
    ]
    return table(header, rows)


def main() -> None:
    """Print the estimate."""
    found = {}
    for name in STUDENTS:
        recipe = Recipe(method="rslad", model=name)
        student, teacher = (build_empty_network(ModelSpec(model, 10)) for model in (name, TEACHER))
        found[name] = costs.step_cost(
            recipe.build_method(), student, teacher, image_size=recipe.image_size, attack_steps=recipe.attack_steps
        )
    images = recipe.epochs * IMAGES_AN_EPOCH
    asked = costs.share_of_new_variants(variant_count(recipe.image_size), recipe.epochs)
    print(f"## Operations, counted\n\n{operations_table()}\n\n{steps_table(found)}\n")
    print(
        f"A label cache that is empty at first asks the teacher about {asked:.1%} of the images over the 300 epochs.\n"
    )
    print(f"## Peaks, from the vendor\n\n{peaks_table()}\n")
    print(f"## How much of them training reaches, assumed\n\n{published_table()}\n\n{assumptions_table()}\n")
    for name, kind in STUDENTS.items():
        print(f"## `{name}`, {images:,} images: estimate, not measured\n")
        print(hours_table(found[name], kind, asked, images) + "\n")


if __name__ == "__main__":
    main()
