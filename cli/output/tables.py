"""Results as people read them: one table for an evaluation, one for a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cli.output.console import Output
from compressor.core.errors import DONE, FAILED
from compressor.core.notebook import percent
from compressor.evaluation.tables import stage_counts
from compressor.numerics.statistics import clopper_pearson, wilson_interval
from compressor.system.sizes import format_size
from exporters.reports.account import headline

if TYPE_CHECKING:
    from compressor.evaluation.agreement import ReferenceAgreement
    from compressor.evaluation.record import EvaluationRecord
    from compressor.evaluation.report import Bits, Report
    from compressor.runs.run import Run
    from compressor.system.interruption import StopRequest
    from exporters.api.exporting import ExportedFile, Steps
    from exporters.artifact.artifact import Artifact
    from exporters.artifact.latency import Latency
    from exporters.artifact.mobile import MobileUsability
    from exporters.differentiable.arithmetic import Arithmetic
    from exporters.pipeline.grid import RunOutcome
    from exporters.verification.verdict import Verdict

_LARGE_EVIDENCE = 100_000_000
_MARKS = {"passed": "ok", "failed": "FAILED", "undecided": "UNDECIDED", "skipped": "-"}


def show_report(report: Report, title: str, output: Output) -> None:
    """Clean accuracy, each attack's, and the worst case, with 95 % Wilson intervals; then the alarms that were raised.

    Where there is more than one attack, the last column counts the images that it broke and no other did.
    """
    doubt = "" if report.trustworthy else ", NOT TRUSTWORTHY"
    several = len(report.attacks) > 1
    unique = report.unique_successes
    rows = [(*_row("clean", report.clean), "")]
    rows += [(*_row(name, bits), str(unique[name])) for name, bits in report.attacks.items()]
    if several or doubt:
        rows.append((*_row(f"worst case{doubt}", report.robust), ""))
    headings = ["attack", "accuracy", "95 % interval", "correct", "images", "unique successes"]
    output.table(
        f"{title}: {report.suite}, {report.threat}, seed {report.seed}{doubt}",
        headings if several else headings[:-1],
        [row if several else row[:-1] for row in rows],
    )
    for name, (stages, broken_by) in report.broken_by.items():
        parts = ", ".join(f"{stage} {count}" for stage, count in stage_counts(stages, broken_by).items())
        output.line(f"{name}: images broken by its parts, each on what the ones before it left: {parts}")
    for alarm in report.alarms:
        # The reasons stay with the table; where there is none, because JSON was asked for, they are warnings.
        say = output.warn if output.as_json else output.line
        say(f"not trustworthy: {alarm.name}: {alarm.detail}. {alarm.meaning}".rstrip())


def show_record(run: Run, record: EvaluationRecord, output: Output) -> None:
    """The table of one of a run's checkpoints."""
    measured = record.measured
    show_report(record.report, f"{run.recipe.model}, {measured.which} checkpoint (epoch {measured.epoch})", output)


def _row(name: str, bits: Bits) -> tuple[str, ...]:
    correct, n = int(bits.sum()), len(bits)
    low, high = wilson_interval(correct, n)
    return name, percent(correct / n), f"{100 * low:.1f} to {100 * high:.1f} %", str(correct), str(n)


def show_agreement(report: Report, column: str, reference: Report, found: ReferenceAgreement, output: Output) -> None:
    """Show on how many images the two differ, and whether ours may replace the reference."""
    (theirs,) = reference.attacks.values()
    ours = report.attacks[column]
    from compressor.evaluation.agreement import LARGEST_EXCESS, LEAST_P

    output.table(
        "AutoAttack against its authors' own loops, image by image",
        ["run", "accuracy", "correct", "images", "unique successes"],
        [
            _agreement_row(f"ours ({column})", ours, found.broken_only_by_ours),
            _agreement_row(str(reference.suite), theirs, found.broken_only_by_reference),
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


def _agreement_row(name: str, right: Bits, alone: int) -> tuple[str, ...]:
    correct, images = int(right.sum()), len(right)
    return name, percent(correct / images), str(correct), str(images), str(alone)


def show_artifact(artifact: Artifact, output: Output) -> None:
    """What an export wrote, and how close it is to the checkpoint, or to the fp32 file."""
    sealed, parity = artifact.sealed, artifact.parity
    assert sealed is not None  # a file without a claim has nothing to show here
    claim, evidence_bytes = sealed.claim, len(sealed.evidence)
    other = "the checkpoint's" if artifact.precision == "fp32" else "fp32's"
    alike = "" if parity.argmax_agreement == 1 else f", predictions alike on {percent(parity.argmax_agreement)}"
    output.table(
        f"exported: {claim.threat}, {claim.samples} evidence images, sealed with {claim.suite}",
        ["file", "size", "clean", "robust", f"logits against {other}"],
        [
            (
                str(artifact.path),
                format_size(len(sealed.model)),
                f"{claim.clean_correct} of {claim.samples}",
                f"{claim.robust} of {claim.samples}",
                f"{parity.max_relative_error:.0e} of their scale{alike}",
            ),
            (str(artifact.evidence), format_size(evidence_bytes), "", "", ""),
            *([(str(artifact.signature), "", "", "", "signed")] if artifact.signature else []),
        ],
    )
    for note in artifact.converted.notes:
        output.note(note)
    for alarm in sealed.alarms:
        output.warn(f"not trustworthy: {alarm.name}: {alarm.detail}; the claim says so.")
    if evidence_bytes > _LARGE_EVIDENCE:
        output.warn(f"the evidence is {format_size(evidence_bytes)}; --evidence-samples N makes it smaller.")


def show_exports(exported: Sequence[ExportedFile], output: Output, *, threads: int | None) -> list[dict[str, Any]]:
    """The files side by side: size, time, accuracies and what fewer bits cost.

    Returns:
        The entries of ``exports`` in the JSON of ``export``.
    """
    from exporters.api.exporting import compare_exports

    output.phase("Timing the files")
    compared = compare_exports(exported, threads=threads)
    times = [time for one in compared for time in one.latency.values()]
    sizes = sorted({size for one in compared for size in one.latency})
    fields = [one.to_json() for one in compared]
    rows = []
    for one, entry in zip(compared, fields, strict=True):
        loss = one.robust_loss
        rows.append(
            (
                entry["precision"],
                format_size(entry["bytes"]),
                *(_milliseconds(one.latency.get(size)) for size in sizes),
                "-" if entry["clean_accuracy"] is None else percent(entry["clean_accuracy"]),
                "-" if entry["robust_accuracy"] is None else percent(entry["robust_accuracy"]),
                "-" if loss is None or entry["precision"] == "fp32" else f"{100 * loss:.1f} points",
                entry["verdict"],
            )
        )
    threads_said = f"{times[0].threads} thread{'s' if times[0].threads > 1 else ''}"
    output.table(
        f"exported files; times are medians of {min(time.runs for time in times)} runs or more, {threads_said}, CPU",
        [
            "precision",
            "size",
            *(f"batch {size}" for size in sizes),
            "clean",
            "attacked",
            "lost against fp32",
            "verdict",
        ],
        rows,
    )
    show_mobile({one.exported.precision: one.mobile for one in compared}, output)
    return fields


def show_mobile(found: Mapping[Arithmetic, MobileUsability], output: Output) -> None:
    """What phones' accelerators could take of each file, by name of the file's precision."""
    rows: list[tuple[str, ...]] = []
    lacking: dict[str, set[str]] = {}
    for precision, usability in found.items():
        if usability.reason:
            output.note(f"{precision}: what phones' accelerators could take of it is not known: {usability.reason}")
        for accelerator in usability.accelerators.values():
            fixed = accelerator.with_fixed_batch
            rows.append((precision, accelerator.name, str(accelerator.as_it_is), "-" if fixed is None else str(fixed)))
            lacking.setdefault(accelerator.name, set()).update(accelerator.lacks)
    if rows:
        output.table(
            "on phones, by onnxruntime's check of operators alone: worth it? how many are taken",
            ["precision", "accelerator", "as it is", "with --fixed-batch"],
            rows,
            figures=False,
        )
    for name, operators in lacking.items():
        if operators:
            output.line(f"{name} does not know {', '.join(sorted(operators))}")


def _milliseconds(time: Latency | None) -> str:
    return "-" if time is None else f"{1000 * time.seconds:.2f} ms"


def show_verdict(verdict: Verdict, output: Output) -> None:
    """Every check with what it found and, where it did not pass, why; then figures, policies, and the answer last."""
    output.line()
    output.line(f"verification, seed {verdict.seed}", "bold")
    for check in verdict.checks:
        output.entry(f"{_MARKS[check.status]:<10}{check.name:<18}", check.detail)
        if check.cause:
            output.entry(f"{'':<28}", check.cause)
    n = verdict.samples
    if n and verdict.clean is not None and verdict.robust is not None:
        low, high = clopper_pearson(verdict.robust, n)
        output.line(
            f"clean {percent(verdict.clean / n)}, attacked {percent(verdict.robust / n)} of {n} images "
            f"(95 % interval of the population {100 * low:.1f} to {100 * high:.1f} %)"
        )
    elif n and verdict.clean is not None:
        output.line(f"clean {percent(verdict.clean / n)} of {n} images; the attacks were not run to their end")
    for alarm in verdict.alarms:
        output.warn(alarm)
    for policy in verdict.policy:
        output.line(f"policy {policy.name}: {policy.status}; {policy.detail}")
    if verdict.first_problem is not None:
        output.line(f"To repeat: {verdict.command}")
    # A claim may hold while a policy is unmet: words and colour go by the exit code too.
    unmet = any(policy.status == "unmet" for policy in verdict.policy)
    style = {DONE: "bold green", FAILED: "bold red"}.get(verdict.exit_code, "bold yellow")
    title = headline(verdict.answer, verdict.exit_code, unmet=unmet)
    output.line(f"{title.upper()} ({verdict.assurance}). {verdict.summary}", style)


def show_outcomes(outcomes: Sequence[RunOutcome], output: Output) -> None:
    """A line for each run: its accuracies, in the worst case too, and the verdict on its file."""
    output.table(
        f"{len(outcomes)} runs",
        ["run", "method", "seed", "clean", "worst case", "verdict"],
        [_outcome_row(outcome) for outcome in outcomes],
        labels=3,
    )


def _outcome_row(outcome: RunOutcome) -> tuple[str, ...]:
    recipe, done = outcome.config.recipe, outcome.done
    name = (outcome.config.folder.path.name, recipe.method, str(recipe.seed))
    if outcome.error is not None or done is None:
        return (*name, "-", "-", outcome.error.code if outcome.error else "-")
    report = done.report
    worst = percent(report.robust_accuracy) + ("" if report.trustworthy else ", NOT TRUSTWORTHY")
    return (*name, percent(report.clean_accuracy), worst, done.verdict.answer)


def steps_of(output: Output, stop: StopRequest) -> Steps:
    """What a command tells, asks and does along the whole way."""
    from exporters.api.exporting import Steps

    return Steps(
        reporter=output,
        stop=stop,
        on_record=lambda run, record: show_record(run, record, output),
        on_artifact=lambda artifact: show_artifact(artifact, output),
        on_verdict=lambda verdict: show_verdict(verdict, output),
    )
