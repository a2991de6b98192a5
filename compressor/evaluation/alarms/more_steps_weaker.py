"""An attack with more steps broke fewer images than one with fewer."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from compressor.evaluation.alarms._contract import AlarmCheck, ExaminedEvaluation
from compressor.evaluation.alarms._probing import robust_against
from compressor.evaluation.chance import weaker_attack_wins
from compressor.evaluation.report import Bits
from compressor.evaluation.suites import describe_suite

_PGD_RUNS = (
    {"steps": 1, "step_size": "1eps", "start": "none"},
    {"steps": 4, "step_size": "0.5eps"},
    {"steps": 12, "step_size": "0.25eps"},
)


def _find(examined: ExaminedEvaluation) -> str | None:
    """Name the pairs of the suite's attacks on one loss that are the wrong way round, or of PGD's 1, 4 and 12 steps."""
    pairs = list(_pairs_of_the_suite(examined))
    if not pairs and examined.is_differentiable:
        pairs = list(_pairs_of_short_runs(examined))
    found = []
    for few, some, many, more in pairs:
        if weaker_attack_wins(int((more & ~some).sum()), int((some & ~more).sum()), len(some)):
            excess = int(more.sum()) - int(some.sum())
            found.append(f"{few} broke {excess} images more than {many}")
    return "; ".join(found) or None


_Pair = tuple[str, Bits, str, Bits]


def _pairs_of_the_suite(examined: ExaminedEvaluation) -> Iterator[_Pair]:
    """Two columns with one loss and unlike numbers of steps; a cascade's bits are cumulative and tell nothing."""
    if examined.report.mode != "alone":
        return
    right = examined.report.attacks
    settings = {entry["column"]: entry["settings"] for entry in describe_suite(examined.suite)["attacks"]}
    ladder = {name: chosen for name, chosen in settings.items() if {"steps", "loss"} <= set(chosen) and name in right}
    for few, fewer in ladder.items():
        for many, more in ladder.items():
            if fewer["loss"] == more["loss"] and fewer["steps"] < more["steps"]:
                yield f"{few} ({fewer['steps']} steps)", right[few], f"{many} ({more['steps']} steps)", right[many]


def _pairs_of_short_runs(examined: ExaminedEvaluation) -> Iterator[_Pair]:
    robust = {}
    for settings in _PGD_RUNS:
        bits = robust_against(examined, examined.threat, "pgd-sat", settings | {"decide": "first"})
        robust[f"PGD with {settings['steps']} step(s)"] = bits
    for (few, some), (many, more) in combinations(robust.items(), 2):
        yield few, some, f"{many} on the sample", more


CHECK = AlarmCheck(
    "More steps see more gradients and should find more: where they find less, gradients may be masked, or the "
    "steps too short for this radius; try other step sizes, and attacks that need no gradient.",
    _find,
)
