"""The tables of a report as CSV: accuracies are fractions, radii parts of the pixel range, what is absent is empty."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any

from compressor.attack_report.findings import ReportFindings
from compressor.numerics.statistics import wilson_interval

_INTERVAL = ("low_95", "high_95")


def tables(findings: ReportFindings) -> dict[str, str]:
    """File names with contents."""
    made = {
        "attacks.csv": _attacks(findings),
        "classes.csv": _classes(findings),
        "curve.csv": _curve(findings),
        "norms.csv": _norms(findings),
        "targeted.csv": _targeted(findings),
    }
    return made | ({"confusion.csv": _confusion(findings)} if findings.confusion else {})


def _attacks(findings: ReportFindings) -> str:
    report = findings.report
    head = ("attack", "stage", "accuracy", *_INTERVAL, "correct", "images", "broke", "broke_alone")
    rows: list[Sequence[Any]] = [("clean", "", *_rate(int(report.clean.sum()), report.samples), "", "")]
    rows += [(c.name, c.stage, *_rate(c.correct, c.n), c.broken, c.unique_successes) for c in findings.columns]
    broke = int((report.clean & ~report.robust).sum())
    rows.append(("worst case", "", *_rate(int(report.robust.sum()), report.samples), broke, ""))
    return _text(head, rows)


def _classes(findings: ReportFindings) -> str:
    head = ["label", "class", "images"]
    head += [f"{which}_{name}" for which in ("clean", "robust") for name in ("accuracy", *_INTERVAL, "correct")]
    return _text(
        head,
        ((k, c.name, c.n, *_rate(c.clean, c.n)[:4], *_rate(c.robust, c.n)[:4]) for k, c in enumerate(findings.classes)),
    )


def _confusion(findings: ReportFindings) -> str:
    names, found = findings.about.class_names, findings.confusion
    counts = found.counts.tolist() if found else []
    return _text(("right class", *names), ((name, *row) for name, row in zip(names, counts, strict=True)))


def _curve(findings: ReportFindings) -> str:
    head = ("norm", "eps", "radius", "accuracy", *_INTERVAL, "correct", "images")
    return _text(
        head,
        ((c.norm, p.eps, f"{p.radius:.6g}", *_rate(p.correct, p.n)) for c in findings.curves for p in c.points),
    )


def _norms(findings: ReportFindings) -> str:
    head = ("image", "label", *(norms.norm for norms in findings.norms))
    distances = zip(*(norms.distances.tolist() for norms in findings.norms), strict=True)
    return _text(
        head,
        (
            (position, label, *(f"{d:.6g}" if isfinite(d) else "" for d in found))
            for position, label, found in zip(findings.positions, findings.labels, distances, strict=True)
        ),
    )


def _targeted(findings: ReportFindings) -> str:
    found, names = findings.targeted, findings.about.class_names
    head = ("right class", "target", "rate", *_INTERVAL, "said the target", "attempts")
    return _text(
        head,
        (
            (name, target, *_rate(int(found.successes[k, t]), int(found.attempts[k, t])))
            for k, name in enumerate(names)
            for t, target in enumerate(names)
            if found.attempts[k, t]
        ),
    )


def _rate(count: int, n: int) -> tuple[str, str, str, int, int]:
    """A fraction, its Wilson interval, and the counts; of nothing there is no fraction."""
    low, high = wilson_interval(count, n)
    return (f"{count / n:.6g}" if n else ""), f"{low:.6g}", f"{high:.6g}", count, n


def _text(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue()
