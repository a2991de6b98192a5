"""``report.md``: one page for a reader who was not there, alarms first, with every figure and what it shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from compressor.attack_report import curve, norms, targeted
from compressor.attack_report.findings import ReportFindings
from compressor.attack_report.norms import MinimalNorms
from compressor.attack_report.radii import format_length, format_threat
from compressor.core.notebook import percent
from compressor.evaluation.report import Alarm
from compressor.numerics.statistics import wilson_interval
from compressor.version import __version__

_MOST_CLASSES, _WEAKEST = 20, 10


def page(findings: ReportFindings, files: Iterable[str]) -> str:
    """The page, in Markdown that any viewer shows.

    Args:
        findings: what it tells.
        files: names of the files beside it; pictures among them are embedded.
    """
    there = set(files)
    parts = [*_head(findings), *_alarms(findings), *_attacks(findings)]
    parts += [*_curve(findings), *_norms(findings), *_classes(findings, there), *_targeted(findings)]
    parts += [*_gallery(findings, there), *_files(there)]
    return "\n\n".join(parts) + "\n"


# Each section yields blocks: a heading, a paragraph, a list or a table.


def _head(findings: ReportFindings) -> Iterator[str]:
    about, report = findings.about, findings.report
    yield f"# {_text(about.model)} under attack"
    low, high = wilson_interval(int(report.robust.sum()), report.samples)
    verdict = "" if report.trustworthy else " **This figure is not trustworthy: see the alarms.**"
    yield (
        f"Of {report.samples:,} test images, the model gets {percent(report.clean_accuracy)} right, and "
        f"**{percent(report.robust_accuracy)}** (95 % interval {100 * low:.1f} to {100 * high:.1f} %) in the worst "
        f"case, under every attack below.{verdict}"
    )
    if findings.missed:
        yield (
            f"**The true accuracy is lower.** Among {_sample(findings)}, {len(findings.missed)} are robust under these "
            "attacks and misclassified, inside the same ball, under those that the figures below were made with. A "
            "stronger suite would find them: `compress list suites`."
        )
    yield _table(
        ("", ""),
        [
            ("threat", format_threat(report.threat)),
            ("suite", f"`{report.suite}`, {_mode(findings)}"),
            ("seed", str(report.seed)),
            ("model", f"SHA-256 `{about.model_sha256}`"),
            ("data", f"{_text(about.dataset)}, {len(about.class_names)} classes, {_size(about.image_shape)}"),
            ("test images", f"{report.samples:,}, SHA-256 `{about.test_sha256}`"),
            ("made by", f"compress {__version__}"),
        ],
    )


def _alarms(findings: ReportFindings) -> Iterator[str]:
    report = findings.report
    yield "## Alarms"
    if report.trustworthy:
        yield "No alarm was raised. `compress list alarms` says what is checked."
    else:
        yield "\n".join(map(_alarm, report.alarms))


def _alarm(alarm: Alarm) -> str:
    meaning = f" {_text(alarm.meaning)}" if alarm.meaning else ""
    return f"- **{_text(alarm.name)}**: {_text(alarm.detail).rstrip('.')}.{meaning}"


def _attacks(findings: ReportFindings) -> Iterator[str]:
    report = findings.report
    yield "## Each attack"
    rows = [("clean", *_accuracy(int(report.clean.sum()), report.samples), "", "")]
    for column in findings.columns:
        name = f"{column.name}: {column.stage}" if column.stage else column.name
        alone = "" if column.unique_successes is None else f"{column.unique_successes:,}"
        rows.append((_text(name), *_accuracy(column.correct, column.n), f"{column.broken:,}", alone))
    broke = f"{int((report.clean & ~report.robust).sum()):,}"
    rows.append(("**worst case**", *_accuracy(int(report.robust.sum()), report.samples), broke, ""))
    yield _table(("attack", "accuracy", "95 % interval", "broke", "broke that no other did"), rows)
    yield "Broken are images that the model gets right unattacked. A stage has only what the stages before it left."


def _curve(findings: ReportFindings) -> Iterator[str]:
    yield "## Accuracy against the radius"
    yield "![Accuracy against the radius](curve.png)"
    yield (
        f"PGD of {curve.CURVE_STEPS} steps on the margin, each radius attacked anew, on {_sample(findings)}. The curve "
        "should decrease to 0; where it levels off above 0 or rises, the attack was probably misled, and the "
        "true accuracy is lower."
    )


def _norms(findings: ReportFindings) -> Iterator[str]:
    yield "## The smallest perturbations"
    yield "![How many images are misclassified under a perturbation of a given length](norms.png)"
    wrong = min(norms.FAB_TARGETS, len(findings.about.class_names) - 1)
    medians = ", ".join(f"{_norm_name(found)} {format_length(found.median, found.norm)}" for found in findings.norms)
    yield (
        f"FAB ({norms.FAB_STEPS} steps towards each of the {wrong} likeliest wrong classes) on {_sample(findings)}. "
        f"Median length, counting 0 where the model errs unattacked: {medians}. Lengths are upper bounds: a shorter "
        "perturbation may exist."
    )


def _classes(findings: ReportFindings, there: set[str]) -> Iterator[str]:
    yield "## Class by class"
    classes = findings.classes
    if len(classes) > _MOST_CLASSES:
        weakest = sorted((found for found in classes if found.n), key=lambda found: found.robust / found.n)
        classes = tuple(weakest[:_WEAKEST])
        yield f"The {len(classes)} weakest of {len(findings.classes)} classes; `classes.csv` has all of them."
    rows = [
        (_text(found.name), f"{found.n:,}", *_accuracy(found.clean, found.n), *_accuracy(found.robust, found.n))
        for found in classes
    ]
    yield _table(("class", "images", "clean", "95 % interval", "robust", "95 % interval"), rows)
    if "confusion.png" in there:
        yield "![What each class is taken for in the worst case](confusion.png)"
    if findings.confusion is not None and findings.confusion.unknown:
        yield f"On {findings.confusion.unknown:,} images the model's logits are not finite; they are in no cell."


def _targeted(findings: ReportFindings) -> Iterator[str]:
    found = findings.targeted
    yield "## Can it be made to say what an attacker wants?"
    yield (
        f"Targeted PGD of {targeted.TARGETED_STEPS} steps at {format_threat(findings.report.threat)} made the model "
        f"say the target in {int(found.successes.sum()):,} of {int(found.attempts.sum()):,} attempts "
        f"({percent(found.rate)}), "
        "spread evenly over the pairs of right class and target; `targeted.csv` has every pair that was tried."
    )


def _gallery(findings: ReportFindings, there: set[str]) -> Iterator[str]:
    yield "## Broken images"
    if "gallery.png" not in there:
        yield "No broken image is shown."
        return
    yield "![Natural image, perturbation and adversarial image](gallery.png)"
    yield (
        "Drawn by seed, evenly over the classes, from the broken images: nobody chose them by their looks. They "
        f"were attacked once more with the attack that broke each, which did so again for {len(findings.examples)} of "
        f"{findings.drawn}."
    )


def _files(there: set[str]) -> Iterator[str]:
    yield "## Data"
    data = [name for name in sorted(there) if name.endswith((".csv", ".json"))]
    yield "Everything above as numbers: " + ", ".join(f"[{name}]({name})" for name in data) + "."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(
        ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows)]
    )


def _accuracy(count: int, n: int) -> tuple[str, str]:
    if n == 0:
        return "-", "-"
    low, high = wilson_interval(count, n)
    return percent(count / n), f"{100 * low:.1f} to {100 * high:.1f} %"


def _sample(findings: ReportFindings) -> str:
    n = len(findings.positions)
    return "all the images" if n == findings.report.samples else f"{n:,} of the images (class-balanced, drawn by seed)"


def _mode(findings: ReportFindings) -> str:
    if findings.report.mode == "cascade":
        return "each attack on the images that are robust so far"
    return "each attack on all images"


def _size(shape: tuple[int, int, int]) -> str:
    return " x ".join(map(str, shape))


def _norm_name(found: MinimalNorms) -> str:
    return "L∞" if found.norm == "Linf" else "L2"


def _text(text: str) -> str:
    """Names from files, which must neither break a table nor become markup."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return "".join(f"\\{c}" if c in "\\|`*_<>[]#" else c for c in plain)
