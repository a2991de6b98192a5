"""Named, versioned lists of attacks: what a number in a table or a claim was measured with.

A published version never changes; a better choice of attacks is a new version. The table is data: listing it imports
no torch, and the attacks are built when they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from compressor.core.registry import ATTACKS, unknown_name

if TYPE_CHECKING:
    from compressor.core.contracts import Attack

QUERY_ONLY = frozenset({"square"})
"""Attacks, and stages of ensembles, that need no gradient."""


@dataclass(frozen=True)
class SuiteColumn:
    """One column of a suite's table: a member of the attacks room, perhaps with other settings.

    Attributes:
        name: what the table and the claim call it.
        attack: the member's name.
        settings: the fields that differ from the member's own.
    """

    name: str
    attack: str
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def build(self) -> Attack:
        """The attack itself."""
        attack: Any = ATTACKS.get(self.attack)
        built: Attack = replace(attack, **self.settings) if self.settings else attack
        return built


@dataclass(frozen=True)
class Suite:
    """The attacks that one evaluation runs.

    Attributes:
        name: what ``--suite`` takes.
        version: counts up; ``name@version`` is one suite for ever.
        summary: one line for ``compress list suites``.
        columns: the attacks, in the order of the table.
    """

    name: str
    version: int
    summary: str
    columns: tuple[SuiteColumn, ...]

    @property
    def attacks(self) -> tuple[tuple[str, Attack], ...]:
        """Column names with their attacks, in order."""
        return tuple((column.name, column.build()) for column in self.columns)

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


_FGSM = SuiteColumn("FGSM", "fgsm")
_AA = SuiteColumn("AA", "autoattack")

# Steps in radii are those of the papers at 8/255, and still cross the ball at another radius.
SUITES: tuple[Suite, ...] = (
    Suite(
        "default",
        1,
        "FGSM, PGD-20 and CW_inf: what distill measures unless told otherwise",
        (
            _FGSM,
            SuiteColumn("PGD-20", "pgd-sat", {"step_size": "0.25eps"}),
            SuiteColumn("CW_inf", "cw-inf", {"step_size": "0.25eps"}),
        ),
    ),
    Suite(
        "paper",
        1,
        "the columns of the RSLAD paper: FGSM, PGD_SAT, PGD_TRADES, CW_inf, AutoAttack",
        (
            _FGSM,
            SuiteColumn("PGD_SAT", "pgd-sat"),
            SuiteColumn("PGD_TRADES", "pgd-trades"),
            SuiteColumn("CW_inf", "cw-inf"),
            _AA,
        ),
    ),
    Suite(
        "quick",
        1,
        "FGSM and PGD-10: a first look, too weak for a claim",
        (_FGSM, SuiteColumn("PGD-10", "pgd-sat", {"steps": 10, "step_size": "0.25eps"})),
    ),
    Suite("standard", 1, "AutoAttack, standard version: hours on a CPU", (_AA,)),
    Suite(
        "reference",
        1,
        "AutoAttack by its authors' own loops, on the model itself: what `standard` is held against",
        (SuiteColumn("AA", "autoattack-reference"),),
    ),
    Suite(
        "parts",
        1,
        "the four attacks of AutoAttack, each on all images: which of them breaks what no other does",
        (
            SuiteColumn("APGD-CE", "apgd-ce"),
            SuiteColumn("APGD-T", "apgd-t"),
            SuiteColumn("FAB-T", "fab-t"),
            SuiteColumn("Square", "square"),
        ),
    ),
    Suite(
        "thorough",
        1,
        "every kind of attack with restarts, each on all images: for a model that is suspected",
        (
            SuiteColumn("PGD-100", "pgd-sat", {"steps": 100, "step_size": "0.1eps", "decide": "first"}),
            SuiteColumn("CW_inf", "cw-inf", {"step_size": "0.25eps", "decide": "first"}),
            SuiteColumn("PGD-MT", "pgd-multitargeted", {"restarts": 2}),
            SuiteColumn("APGD-CE", "apgd-ce", {"restarts": 5}),
            SuiteColumn("APGD-DLR", "apgd-dlr", {"restarts": 5}),
            SuiteColumn("APGD-T", "apgd-t", {"restarts": 2}),
            SuiteColumn("FAB-T", "fab-t"),
            SuiteColumn("Square", "square", {"queries": 10_000}),
        ),
    ),
)


def get_suite(name: str) -> Suite:
    """The suite called ``name`` (its newest version) or ``name@version``.

    Raises:
        UnknownNameError: no such suite or version; near misses are suggested.
    """
    versions = [suite for suite in SUITES if name in (suite.name, str(suite))]
    if versions:
        return max(versions, key=lambda suite: suite.version)
    known = [str(suite) for suite in SUITES] if "@" in name else sorted({suite.name for suite in SUITES})
    raise unknown_name("suite", name, known)


def describe_suite(suite: Suite) -> dict[str, Any]:
    """Everything that decides what a suite does, defaults spelled out, as JSON-able values: claims record it."""
    attacks = [
        {"column": column.name, "attack": column.attack, "settings": _settings(column.build())}
        for column in suite.columns
    ]
    return {"name": suite.name, "version": suite.version, "attacks": attacks}


def _settings(attack: Attack) -> dict[str, Any]:
    if not is_dataclass(attack) or isinstance(attack, type):
        raise TypeError(f"the attack {attack!r} is not a dataclass, so its settings cannot be recorded")
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(attack).items()}
