"""``--reference``: AutoAttack by its authors' own loops as well, and where the two differ."""

from __future__ import annotations

from cli.output.console import Output
from compressor.core.notebook import percent
from compressor.evaluation.agreement import LARGEST_EXCESS, LEAST_P, ReferenceAgreement
from compressor.evaluation.report import Bits, Report


def show_agreement(report: Report, column: str, reference: Report, found: ReferenceAgreement, output: Output) -> None:
    """Show on how many images the two differ, and whether ours may replace the reference."""
    (theirs,) = reference.attacks.values()
    ours = report.attacks[column]
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


def _row(name: str, right: Bits, alone: int) -> tuple[str, ...]:
    correct, images = int(right.sum()), len(right)
    return name, percent(correct / images), str(correct), str(images), str(alone)
