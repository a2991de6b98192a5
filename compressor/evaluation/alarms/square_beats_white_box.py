"""Square, which uses logits alone, broke images that are robust under every attack with gradients."""

from __future__ import annotations

import numpy as np

from compressor.evaluation.alarms._contract import AlarmCheck, ExaminedEvaluation
from compressor.evaluation.alarms._probing import robust_against
from compressor.evaluation.chance import WEAKER_ADVANTAGE_ALLOWED, rate_exceeds
from compressor.evaluation.report import Bits
from compressor.evaluation.suites import QUERY_ONLY

_QUERIES = 100


def _find(examined: ExaminedEvaluation) -> str | None:
    """Count in the suite's own bits; where it has no Square, run a short one on the robust part of the sample.

    Of the images that the short one breaks, those count that a longer gradient attack does not break either: a weak
    suite is not yet a model that hides its gradients.
    """
    if not any(column.attack not in QUERY_ONLY for column in examined.suite.columns):
        return None
    counted = _in_the_report(examined)
    if counted is None:
        count, n = _on_the_sample(examined), len(examined.x)
        found = f"{_QUERIES} queries of Square broke {count} of {n} images of a sample"
    else:
        count, n = counted, examined.report.samples
        found = f"Square broke {count} of {n} images"
    return f"{found} that no attack with gradients broke" if rate_exceeds(count, n, WEAKER_ADVANTAGE_ALLOWED) else None


def _on_the_sample(examined: ExaminedEvaluation) -> int:
    before = examined.robust & examined.right.cpu().numpy()
    after = robust_against(examined, examined.threat, "square", {"queries": _QUERIES}, among=before)
    misclassified = before & ~after
    if not misclassified.any() or not examined.is_differentiable:
        return int(misclassified.sum())
    settings = {"steps": 40, "step_size": "0.1eps", "decide": "first"}
    return int(robust_against(examined, examined.threat, "cw-inf", settings, among=misclassified).sum())


def _in_the_report(examined: ExaminedEvaluation) -> int | None:
    """How many images queries alone broke, of all; ``None`` where no attack of the suite is of that kind."""
    report = examined.report
    by_queries, by_gradients = np.zeros_like(report.clean), np.zeros_like(report.clean)
    has_queries = False
    before = report.clean
    is_cascade = report.mode == "cascade"
    for column in examined.suite.columns:
        broken: Bits = before & ~report.attacks[column.name]
        stages, culprit = report.broken_by.get(column.name, ((), None))
        if is_cascade and column.attack not in QUERY_ONLY:
            by_queries[:] = False  # nobody knows what this attack would have done with the images broken before it
        if column.attack in QUERY_ONLY:
            has_queries = True
            by_queries |= broken
        elif culprit is not None and QUERY_ONLY & set(stages):
            has_queries = True
            asked = np.isin(culprit, [place for place, stage in enumerate(stages) if stage in QUERY_ONLY])
            by_queries |= broken & asked
            by_gradients |= broken & ~asked
        else:
            by_gradients |= broken
        if is_cascade:
            before = report.attacks[column.name]
    return int((by_queries & ~by_gradients).sum()) if has_queries else None


CHECK = AlarmCheck(
    "A search without gradients is the weaker one, unless the gradients mislead: take out what masks them, or "
    "trust only attacks that need none, with many more queries.",
    _find,
)
