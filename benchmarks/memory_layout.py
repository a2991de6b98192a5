"""PGD-10 in the default memory layout against channels-last: images a second, interleaved, the median of several.

python benchmarks/memory_layout.py [--models mobilenetv2 resnet18-0.25] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch
from torch import nn

from compressor.core.types import ModelSpec, Threat
from compressor.models.classifier import build_classifier
from compressor.numerics.ascent import ascend
from compressor.numerics.losses import cross_entropy
from compressor.numerics.randomness import make_generator
from compressor.system.threads import available_threads

BATCH, STEPS = 32, 10


def images_a_second(model: nn.Module, layout: torch.memory_format) -> float:
    """Attack one batch of noise and time it."""
    x = torch.rand(BATCH, 3, 32, 32, generator=make_generator("benchmark")).contiguous(memory_format=layout)
    y = torch.arange(BATCH) % 10
    model = model.to(memory_format=layout)
    started = time.perf_counter()
    ascend(
        lambda x_adv, index: cross_entropy(model(x_adv), y[index]),
        x,
        Threat(),
        make_generator("start"),
        steps=STEPS,
        step_size=2 / 255,
    )
    return BATCH / (time.perf_counter() - started)


def main() -> None:
    """Print one line a model, and all figures as JSON on the last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["mobilenetv2", "resnet18-0.25"])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(available_threads())
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    results = {}
    for name in arguments.models:
        model = build_classifier(ModelSpec(name, 10), seed=0).eval()
        pairs = [
            (images_a_second(model, torch.contiguous_format), images_a_second(model, torch.channels_last))
            for _ in range(arguments.rounds + 1)
        ][1:]  # the first pair warms up
        default, last = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        results[name] = {"default": round(default, 1), "channels_last": round(last, 1), "ratio": round(ratio, 2)}
        print(f"{name}: {default:.1f} images/s, channels-last {last:.1f} images/s, ratio {ratio:.2f}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
