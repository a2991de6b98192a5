"""Speed: RSLAD steps and AutoAttack against the plain loops, in one process, interleaved."""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import attacks
from benchmarks.gpu import peaks as peak
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.profiling import profile_steps
from benchmarks.gpu.results import Results
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.turns import PlainSide, ProductSide, Side
from benchmarks.gpu.variants import VARIANTS, Variant
from compressor.checkpoint import save_checkpoint
from compressor.core.registry import METHODS
from compressor.core.types import ModelSpec
from compressor.models.classifier import build_classifier, build_empty_network
from compressor.models.costs import StepCost, step_cost

PLAIN = Variant("plain loop, fp32", arithmetic="fp32")
ATTACK_STEPS = 10
COMPILE_SECONDS = 40.0  # what compiling is allowed to take; with less left it would only be killed


@dataclass(frozen=True)
class Sizes:
    """How much is timed: ``steps`` of ``batch`` images a turn, ``rounds`` turns after one that is not counted."""

    students: tuple[str, ...] = ("resnet18", "mobilenetv2")
    teachers: tuple[str, ...] = ("wideresnet-16-4", "wideresnet-34-10")
    batch: int = 128
    steps: int = 5
    rounds: int = 5
    attacked: int = 128
    attack_rounds: int = 3
    product: int = 8192
    effort: Mapping[str, int] = field(default_factory=lambda: attacks.EFFORT)


SMOKE = Sizes(
    ("resnet18-0.125",),
    ("wideresnet-10-1",),
    batch=4,
    steps=1,
    rounds=2,
    attacked=2,
    attack_rounds=1,
    product=128,
    effort={"steps": 1, "targets": 1, "queries": 3},
)


@dataclass(frozen=True)
class Pair:
    """A student and the teacher it learns from."""

    student: str
    teacher: str

    def __str__(self) -> str:
        return f"{self.student} of {self.teacher}"


def run(settings: Settings, results: Results, clock: Clock) -> None:
    """Measure until the clock says stop, what is asked for first first, and what starts slowly last."""
    sizes, device = SMOKE if settings.smoke else Sizes(), torch.device(settings.device)
    peaks = peak.measured_peaks(device, side=sizes.product, repeats=3 if settings.smoke else 20)
    results.add("speed", "peaks", side=sizes.product, operations_per_second=peaks, tf32=peak.float32_switches())
    pairs = [Pair(student, teacher) for teacher in sizes.teachers for student in sizes.students]
    with tempfile.TemporaryDirectory(dir=settings.work, prefix="speed-") as folder:
        teachers = {name: _random_teacher(name, Path(folder)) for name in sizes.teachers}

        def race(pair: Pair, *, late: bool) -> None:
            variants = tuple(variant for variant in VARIANTS if variant.late == late)
            with tempfile.TemporaryDirectory(dir=folder) as own:
                Race(pair, teachers[pair.teacher], sizes, device, Path(own), peaks).run(variants, results, clock)

        for pair in pairs:
            _report(results, clock, f"RSLAD, {pair}", partial(race, pair, late=False))
        for student in sizes.students:
            attack = partial(_attack, student, sizes, settings.device, results, clock)
            _report(results, clock, f"AutoAttack, {student}", attack)
        if settings.profile:
            first = pairs[0]
            profile = partial(_profile, first, teachers[first.teacher], sizes, device, Path(folder), results)
            _report(results, clock, "profile", profile)
        if settings.compiled:
            for pair in pairs:
                _report(
                    results, clock, f"compiled RSLAD, {pair}", partial(race, pair, late=True), least=COMPILE_SECONDS
                )


class Race:
    """The plain loop and some variants of ours on one pair, stepping in turns."""

    def __init__(
        self, pair: Pair, teacher: Path, sizes: Sizes, device: torch.device, folder: Path, peaks: dict[str, float]
    ) -> None:
        self.pair, self.teacher, self.sizes, self.device, self.folder = pair, teacher, sizes, device, folder
        self.peaks = peaks
        self.variants: dict[str, Variant] = {}
        self.sides: dict[str, Side] = {}
        self.resident: dict[str, int] = {}
        self.transient: dict[str, int] = {}
        self.switches: dict[str, dict[str, Any]] = {}
        self.seconds: dict[str, list[float]] = {}

    def run(self, variants: tuple[Variant, ...], results: Results, clock: Clock) -> None:
        """Start all sides, let them step in turns, and write a record for each."""
        try:
            for number, variant in enumerate((PLAIN, *variants)):
                try:
                    self._start(number, variant)
                except Exception as error:
                    if variant is PLAIN:
                        raise
                    results.add("speed", "failure", what=f"{self.pair}: {variant.name}", error=_told(error))
            for number in range(self.sizes.rounds + 1):
                if number > 1 and not clock.has(0):
                    break
                for name in list(self.sides):
                    self._turn(name, results, counts=number > 0)
        finally:
            for side in self.sides.values():
                side.close()
            self.sides.clear()
            _release_memory(self.device)
        for name in self.seconds:
            results.add("speed", "training", **self._record(name))

    def _start(self, number: int, variant: Variant) -> None:
        before, sizes = _allocated(self.device), self.sizes
        own = self.folder / str(number)
        own.mkdir()
        if variant is PLAIN:
            side: Side = PlainSide(self.pair.student, self.teacher, sizes.batch, self.device)
        else:
            side = ProductSide(
                variant,
                self.pair.student,
                self.teacher,
                batch=sizes.batch,
                # The turns, and one step more, so that the epoch is not over before the last turn is.
                steps=(sizes.rounds + 1) * sizes.steps + 1,
                folder=own,
                device=self.device,
                seed=number,
            )
        self.sides[variant.name], self.variants[variant.name] = side, variant
        self.resident[variant.name] = _allocated(self.device) - before
        self.transient[variant.name] = 0

    def _turn(self, name: str, results: Results, *, counts: bool) -> None:
        cuda = self.device.type == "cuda"
        before = _allocated(self.device)
        if cuda:
            torch.cuda.reset_peak_memory_stats(self.device)
        try:
            seconds = self.sides[name].step(self.sizes.steps)
        except Exception as error:
            if self.variants[name] is PLAIN:
                raise
            results.add("speed", "failure", what=f"{self.pair}: {name}", error=_told(error))
            del self.sides[name]
            return
        if cuda:
            peak_bytes = torch.cuda.max_memory_allocated(self.device) - before
            self.transient[name] = max(self.transient[name], peak_bytes)
        self.switches[name] = peak.float32_switches()
        if counts:
            self.seconds.setdefault(name, []).append(seconds / self.sizes.steps)

    def _record(self, name: str) -> dict[str, Any]:
        variant, times, plain = self.variants[name], self.seconds[name], self.seconds[PLAIN.name]
        step = statistics.median(times)
        cost = _cost(self.pair, asked=0.0 if variant.warm else 1.0)
        unit = peak.unit_of(variant.arithmetic, self.switches[name], self.device)
        return {
            "student": self.pair.student,
            "teacher": self.pair.teacher,
            "side": name,
            "batch": self.sizes.batch,
            "rounds": len(times),
            "steps_per_round": self.sizes.steps,
            "seconds_per_step": step,
            "seconds": times,
            "images_per_second": self.sizes.batch / step,
            "ratio_to_plain": statistics.median(p / own for p, own in zip(plain, times, strict=False)),
            "gpu_bytes": self.resident[name] + self.transient[name] if self.device.type == "cuda" else None,
            "operations_per_image": cost.total,
            "unit": unit,
            "share_of_peak": cost.total * self.sizes.batch / step / self.peaks[unit],
            "tf32": self.switches[name],
        }


def _attack(student: str, sizes: Sizes, device: str, results: Results, clock: Clock) -> None:
    """Seconds of AutoAttack's four attacks, effort reduced as in ``benchmarks/attacks.py``, by side."""
    sides = attacks.attack_sides(student, sizes.attacked, device, sizes.effort)
    for stages in sides.values():  # allocation and the choice of algorithms happen once
        stages["apgd-ce"]()
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(sizes.attack_rounds):
        if number and not clock.has(0):
            break
        for side, stages in sides.items():
            times = [attacks.timed(run_stage, f"{student}, {side}, {stage}") for stage, run_stage in stages.items()]
            seconds[side].append(sum(times))
    for side, times in seconds.items():
        ratio = statistics.median(plain / own for plain, own in zip(seconds["plain"], times, strict=True))
        results.add(
            "speed",
            "autoattack",
            student=student,
            side=side,
            images=sizes.attacked,
            effort=dict(sizes.effort),
            rounds=len(times),
            seconds=times,
            images_per_second=sizes.attacked / statistics.median(times),
            ratio_to_plain=ratio,
            tf32=peak.float32_switches(),
        )
    del sides
    _release_memory(torch.device(device))


def _profile(pair: Pair, teacher: Path, sizes: Sizes, device: torch.device, folder: Path, results: Results) -> None:
    """Write a table of what a few steps of the last variant that starts fast spend their time on."""
    variant = [variant for variant in VARIANTS if not variant.late][-1]
    table = profile_steps(
        variant, pair.student, teacher, batch=sizes.batch, steps=sizes.steps, folder=folder, device=device
    )
    title = f"{variant.name}, {pair}, {sizes.steps} steps of {sizes.batch} images\n"
    (results.folder / "profile.txt").write_text(title + table, encoding="utf-8")
    results.add("speed", "profile", file="profile.txt", what=title.strip())
    _release_memory(device)


def _random_teacher(name: str, folder: Path) -> Path:
    path = folder / f"{name}.safetensors"
    save_checkpoint(path, build_classifier(ModelSpec(name, 10), seed=1), {})
    return path


def _cost(pair: Pair, *, asked: float) -> StepCost:
    networks = (build_empty_network(ModelSpec(name, 10)) for name in (pair.student, pair.teacher))
    return step_cost(METHODS.get("rslad")(), *networks, image_size=32, attack_steps=ATTACK_STEPS, asked=asked)


def _report(results: Results, clock: Clock, what: str, measure: Callable[[], None], *, least: float = 5.0) -> None:
    """Run a piece, and write a failure down instead of raising it; skip it where fewer than ``least`` s are left."""
    if not clock.has(least):
        results.add("speed", "skipped", what=what, why=f"{max(clock.left, 0):.0f} s of the part's budget were left")
        return
    print(f"speed: {what} ({clock.left:.0f} s left)", flush=True)
    started = time.monotonic()
    try:
        measure()
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        results.add("speed", "failure", what=what, error=_told(error))
    print(f"speed: {what} took {time.monotonic() - started:.1f} s", flush=True)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:2000]


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _release_memory(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
