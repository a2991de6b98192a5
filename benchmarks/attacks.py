"""AutoAttack's throughput against plain pyautoattack's, in one run, interleaved; and how often the two disagree.

python benchmarks/attacks.py [--models mobilenetv2 resnet18] [--images 32] [--rounds 5]

Throughput. Every image stays robust: eps is 0.1/255 and the labels are the model's own predictions (one class's bias
is lifted), so nobody leaves a batch and both sides take every step. Steps, targets and queries are reduced, equally on
both sides, to about the shares that they have of the standard version (APGD 21 %, FAB 28 %, Square 51 % of the forward
passes). Each round runs the library's attacks on the plain model, our own in fp32, and with bf16 proposals, once each
on the same images, all at once; a ratio is the median over rounds of (library's seconds / ours).

Disagreements. A quarter-width model of the same family, trained for a moment against FGSM on synthetic classes, and a
radius at which about three quarters of the images are broken: the library's loops on the model itself, and ours, image
by image.

The last line is JSON: model -> fp32 and bf16 ratios, and the disagreements of both on --judged images.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

CLASSES, SIDE = 10, 32
EFFORT = {"steps": 4, "targets": 2, "queries": 55}
JUDGING = {"steps": 40, "targets": 5, "queries": 300}
TIMED_TRAINING, JUDGED_TRAINING = 12, 80
STANDING_EPS = "0.1/255"


def main() -> None:
    """Time both sides, count disagreements, print a table and the JSON."""
    arguments = _arguments()
    found: dict[str, dict[str, Any]] = {}
    print("| model | attack | plain, s | fp32, s | bf16, s | fp32 ratio | bf16 ratio |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.models:
        found[name] = _throughput(name, arguments.images, arguments.rounds)
    print()
    print("| model | eps | robust, reference | fp32 | bf16 | fp32 disagrees | p | bf16 disagrees | p |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in arguments.models:
        found[name]["disagreements"] = _disagreements(f"{name}-0.25", arguments.judged)
    print(json.dumps(found))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["mobilenetv2", "resnet18"])
    parser.add_argument("--images", type=int, default=32, help="in the timed runs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--judged", type=int, default=256, help="images on which disagreements are counted")
    return parser.parse_args()


def _throughput(name: str, count: int, rounds: int) -> dict[str, Any]:
    sides = attack_sides(name, count)
    for stages in sides.values():  # allocation and the choice of algorithms happen once
        stages["apgd-ce"]()
    seconds: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for side, runs in sides.items():
            for stage, run in runs.items():
                seconds.setdefault(stage, {}).setdefault(side, []).append(timed(run, f"{name}, {side}, {stage}"))
    seconds["all"] = {side: [sum(runs) for runs in zip(*(seconds[stage][side] for stage in seconds), strict=True)]
                      for side in sides}  # fmt: skip
    ratios: dict[str, float] = {}
    for stage, times in seconds.items():
        cells = [statistics.median(times[side]) for side in sides]
        ratios = {
            side: statistics.median(p / m for p, m in zip(times["plain"], times[side], strict=True))
            for side in ("fp32", "bf16")
        }
        row = " | ".join(f"{cell:.2f}" for cell in (*cells, *ratios.values()))
        print(f"| {name} | {stage} | {row} |", flush=True)
    return {side: round(ratio, 3) for side, ratio in ratios.items()}


def attack_sides(
    name: str, count: int, device: str = "cpu", effort: Mapping[str, int] = EFFORT
) -> dict[str, dict[str, Callable[[], Tensor]]]:
    """The sides that are compared: the library's attacks on the plain model, and ours with fp32 and bf16 proposals.

    Args:
        name: of the model.
        count: images that every side attacks.
        device: where both sides compute.
        effort: ``steps``, ``targets`` and ``queries`` of each side.

    Returns:
        side -> stage -> a function that runs it and returns which images are still classified correctly, bool ``[B]``.
    """
    from compressor.core.registry import ATTACKS
    from compressor.core.types import Threat
    from compressor.frozen import Surrogate, surrogate_of

    model = _network(name, steps=TIMED_TRAINING)
    _favour_one_class(model)
    model.to(device)
    x = _labelled(count, _generator())[0].to(device)
    with torch.no_grad():
        y = model(x).argmax(1)
    threat = Threat("Linf", STANDING_EPS)
    surrogates = {"fp32": surrogate_of(model, x[:8]), "bf16": surrogate_of(model, x[:8], "bf16")}
    if not all(isinstance(surrogate, Surrogate) for surrogate in surrogates.values()):
        sys.exit(f"{name} could not be folded")
    plain, ours = _plain(model, threat, device, effort), replace(ATTACKS.get("autoattack"), **effort)
    sides: dict[str, dict[str, Callable[[], Tensor]]] = {"plain": {}, "fp32": {}, "bf16": {}}
    for stage, part in ours.stages:
        sides["plain"][stage] = lambda run=plain[stage]: model(run(x, y)).argmax(1) == y
        for side, surrogate in surrogates.items():
            sides[side][stage] = lambda part=part, s=surrogate: ~part(s, x, y, threat, _generator(device)).broken
    return sides


def timed(run: Callable[[], Tensor], title: str) -> float:
    """Seconds that a stage takes, its device waited for; leaves the program if an image does not stay correct."""
    started = time.perf_counter()
    correct = bool(run().all())  # waits for the device: the answer depends on everything that was queued
    seconds = time.perf_counter() - started
    if not correct:
        sys.exit(f"{title}: an image was misclassified, so the sides did unequal work")
    return seconds


def _plain(
    model: nn.Module, threat: Any, device: str, effort: Mapping[str, int]
) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """The library's four attacks as a user of it gets them, with fewer iterations."""
    from pyautoattack import AutoAttack
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

    adversary = AutoAttack(model, eps=threat.radius, norm=threat.norm, seed=0, version="standard", device=device)
    adversary.verbose = False
    common = {"n_iter": effort["steps"], "eps": threat.radius, "norm": threat.norm, "seed": 0, "device": device}
    quiet = logging.Logger("quiet")
    untargeted = APGDAttack(model, n_restarts=1, loss="ce", logger=quiet, **common)
    targeted = APGDAttack_targeted(model, n_restarts=1, n_target_classes=effort["targets"], logger=quiet, **common)
    adversary.fab.n_iter, adversary.fab.n_target_classes, adversary.fab.targeted = (
        effort["steps"],
        effort["targets"],
        True,
    )
    adversary.square.n_queries = effort["queries"]
    # The library's own evaluation turns gradients off around everything, and so do we.
    return {
        "apgd-ce": torch.no_grad()(untargeted.perturb),
        "apgd-t": torch.no_grad()(targeted.perturb),
        "fab-t": torch.no_grad()(adversary.fab.perturb),
        "square": torch.no_grad()(adversary.square.perturb),
    }


def _disagreements(name: str, count: int) -> dict[str, Any]:
    from compressor.core.registry import ATTACKS
    from compressor.frozen import surrogate_of
    from compressor.numerics.statistics import mcnemar

    model = _network(name, steps=JUDGED_TRAINING, eps=8 / 255)
    x, y = _labelled(count, _generator())
    ours, theirs = (
        replace(ATTACKS.get("autoattack"), **JUDGING),
        replace(ATTACKS.get("autoattack-reference"), **JUDGING),
    )
    threat = _threat_that_breaks(0.75, model, x, y)
    reference = ~theirs(model, x, y, threat, _generator()).broken
    row, found = [f"{int(reference.sum())}"], {}
    for precision in ("fp32", "bf16"):
        surrogate = surrogate_of(model, x[:8], precision)
        if getattr(getattr(surrogate, "proposer", None), "precision", None) != precision:
            sys.exit(f"{name} could not be folded in {precision}")
        robust_so_far = ~ours(surrogate, x, y, threat, _generator()).broken
        more, fewer = int((robust_so_far & ~reference).sum()), int((reference & ~robust_so_far).sum())
        found[precision] = {
            "images": count,
            "disagreements": more + fewer,
            "above_reference": (more - fewer) / count,
            "p": round(mcnemar(more, fewer), 4),
        }
        row.append(f"{int(robust_so_far.sum())}")
    cells = [f"{found[p]['disagreements']} | {found[p]['p']}" for p in ("fp32", "bf16")]
    print(f"| {name} | {threat.eps} | {' | '.join(row)} | {' | '.join(cells)} |", flush=True)
    return found


def _threat_that_breaks(share: float, model: nn.Module, x: Tensor, y: Tensor) -> Any:
    """A radius at which a short PGD breaks about this share of the images."""
    from compressor.core.registry import ATTACKS
    from compressor.core.types import Threat

    attack = replace(ATTACKS.get("pgd-sat"), steps=10, step_size="0.25eps", decide="first")
    low, high = 0.0, 16 / 255
    for _ in range(8):
        middle = (low + high) / 2
        broken = attack(model, x[:64], y[:64], Threat("Linf", f"{middle:.6f}"), _generator()).broken.float().mean()
        low, high = (middle, high) if broken < share else (low, middle)
    return Threat("Linf", f"{(low + high) / 2:.6f}")


def _network(name: str, *, steps: int, eps: float = 0.0) -> nn.Module:
    """A network that tells ten synthetic classes apart after a few steps, against FGSM where a radius is given."""
    from compressor.core.types import ModelSpec
    from compressor.models.classifier import build_classifier

    model = build_classifier(ModelSpec(name, CLASSES), seed=0).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, nesterov=True)
    generator = torch.Generator().manual_seed(3)
    for _ in range(steps):
        x, y = _labelled(32, generator)
        if eps:
            x.requires_grad_()
            (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), x)
            x = (x.detach() + eps * gradient.sign()).clamp(0, 1)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None  # the statistics of all pictures that follow, not a moving average
    with torch.no_grad():
        model(_labelled(256, generator)[0])
    return model.eval()


def _favour_one_class(model: nn.Module) -> None:
    """Lift one class's bias far above what a tiny radius can undo: the same arithmetic, and no image is broken."""
    *_, last = (module for module in model.modules() if isinstance(module, nn.Linear))
    with torch.no_grad():
        last.bias[0] += 30


def _labelled(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures ``[B, 3, 32, 32]`` that are half a class's own pattern and half noise, smooth and fine, and labels."""

    def smooth(number: int, source: torch.Generator) -> Tensor:
        coarse = torch.rand(number, 3, 6, 6, generator=source)
        return nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear", align_corners=False)

    y = torch.randint(CLASSES, (count,), generator=generator)
    pattern = smooth(CLASSES, torch.Generator().manual_seed(1))[y]
    fine = torch.rand(count, 3, SIDE, SIDE, generator=generator)
    return 0.5 * pattern + 0.35 * smooth(count, generator) + 0.15 * fine, y


def _generator(device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(0)


if __name__ == "__main__":
    main()
