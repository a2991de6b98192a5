"""``--reference``: AutoAttack by its authors' own loops as well, and where the two differ."""

from __future__ import annotations

from cli.output.console import Output, percent
from compressor.core.errors import UsageError
from compressor.evaluation.agreement import LARGEST_EXCESS, LEAST_P, ReferenceAgreement, compare_with_reference
from compressor.evaluation.report import Bits, Report
from compressor.evaluation.suites import Suite

REFERENCE_SUITE = "reference"


def autoattack_column(suite: Suite) -> str:
    """The column that the reference is held against.

    Raises:
        UsageError: the suite has no AutoAttack.
    """
    for column in suite.columns:
        if column.attack == "autoattack":
            return column.name
    raise UsageError(
        f"--reference checks AutoAttack, and the suite {suite} has none.", "Use --suite standard or --suite paper."
    )


def show_agreement(report: Report, column: str, reference: Report, output: Output) -> ReferenceAgreement:
    """Count on how many images the two differ, and say whether ours may replace the reference."""
    (theirs,) = reference.attacks.values()
    ours = report.attacks[column]
    found = compare_with_reference(ours, theirs)
    output.table(
        "AutoAttack against its authors' own loops, image by image",
        ["run", "accuracy", "correct", "images", "unique successes"],
        [
            _row(f"ours ({column})", ours, found.broken_only_by_ours),
            _row(str(reference.suite), theirs, found.broken_only_by_reference),
        ],
    )
    output.line(
        f"{found.disagreements} disagreement(s); McNemar p = {found.p_value:.2g}; "
        f"ours is {100 * found.excess:+.2f} points against the reference"
    )
    if not found.holds:
        output.warn(
            f"ours does not replace the reference here (p above {LEAST_P} and at most {100 * LARGEST_EXCESS:g} "
            "points above it are asked): quote the reference."
        )
    return found


def _row(name: str, right: Bits, alone: int) -> tuple[str, ...]:
    correct, images = int(right.sum()), len(right)
    return name, percent(correct / images), str(correct), str(images), str(alone)
