"""Records of a run as one readable Markdown page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

Record = dict[str, Any]


def summarise(records: Sequence[Record]) -> str:
    """The page; every record has ``part`` and ``kind``, and kinds without a table are listed as they are."""
    blocks = ["# One run on a GPU"]
    for title, part, kind, show in _SECTIONS:
        found = [record for record in records if record["part"] == part and record["kind"] == kind]
        if found:
            blocks.append(f"## {title}\n\n{show(found)}")
    problems = [record for record in records if record["kind"] in ("failure", "skipped", "stopped")]
    if problems:
        blocks.append("## What failed or was left out\n\n" + "\n".join(_problem(record) for record in problems))
    return "\n\n".join(blocks) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _problem(record: Record) -> str:
    what, why = record.get("what", "the whole part"), record.get("error") or record.get("why", "")
    return f"- {record['part']}, {record['kind']}: {what}: " + " ".join(str(why).split())[:300]


def _facts(records: list[Record]) -> str:
    shown = {key: value for record in records for key, value in record.items() if key not in ("part", "kind")}
    return "\n".join(f"- {key}: {value}" for key, value in shown.items())


def _times(records: list[Record]) -> str:
    header = ["part", "seconds", "of its budget", "exit code"]
    rows = [[r["name"], f"{r['seconds']:.0f}", f"{r['budget']:.0f}", str(r["exit_code"])] for r in records]
    return table(header, rows)


def _tests(records: list[Record]) -> str:
    lines = []
    for record in records:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(record["counts"].items())) or "no test ran"
        stopped = "; stopped at the end of its budget" if record["stopped_by_budget"] else ""
        lines.append(f"{counts} in {record['seconds']:.0f} s, exit code {record['exit_code']}{stopped}.")
        lines += [
            f"- {problem['outcome']}: {problem['test']}: {' '.join(problem['message'].split())[:200]}"
            for problem in record["not_passed"]
        ]
    return "\n".join(lines)


def _peaks(records: list[Record]) -> str:
    (record, *_) = reversed(records)
    rows = [[name, f"{rate / 1e12:.2f}"] for name, rate in record["operations_per_second"].items()]
    side = record["side"]
    return table([f"matrix product of side {side}", "TFLOP/s"], rows) + f"\n\nTF32 switches: {record['tf32']}"


def _training(records: list[Record]) -> str:
    header = [
        "student of teacher", "side", "steps/s", "images/s", "against the plain loop", "GPU memory",
        "share of the peak", "rounds", "TF32 in convolutions / products",
    ]  # fmt: skip
    rows = [
        [
            f"{r['student']} of {r['teacher']}, batch {r['batch']}",
            r["side"],
            f"{1 / r['seconds_per_step']:.2f}",
            f"{r['images_per_second']:.0f}",
            f"x {r['ratio_to_plain']:.2f}",
            "-" if r["gpu_bytes"] is None else f"{r['gpu_bytes'] / 1e9:.2f} GB",
            f"{100 * r['share_of_peak']:.1f} % of {r['unit']}",
            str(r["rounds"]),
            f"{r['tf32']['convolutions']} / {r['tf32']['matrix products']}",
        ]
        for r in records
    ]
    return table(header, rows)


def _autoattack(records: list[Record]) -> str:
    header = ["model", "side", "images/s", "against the library", "rounds", "TF32 in convolutions"]
    rows = [
        [
            r["student"],
            r["side"],
            f"{r['images_per_second']:.2f}",
            f"x {r['ratio_to_plain']:.2f}",
            str(r["rounds"]),
            str(r["tf32"]["convolutions"]),
        ]
        for r in records
    ]
    effort = ", ".join(f"{value} {name}" for name, value in records[0]["effort"].items())
    return f"With reduced effort on all sides: {effort}; {records[0]['images']} images.\n\n{table(header, rows)}"


def _schedule(records: list[Record]) -> str:
    rows = [
        [
            r["method"],
            str(r["epochs"]),
            str(r["steps_per_epoch"]),
            f"{1e3 * r['measured']['step']:.1f}",
            f"{r['expected_seconds']:.0f}",
            f"{r['seconds_for_training']:.0f}",
        ]
        for r in records
    ]
    return table(["method", "epochs", "steps an epoch", "ms a step, measured", "seconds expected", "allowed"], rows)


def _epochs(records: list[Record]) -> str:
    blocks = []
    for record in records:
        epochs = record["epochs"]
        best = [epoch["epoch"] for epoch in epochs if epoch["best"]]
        stopped = ", stopped at the end of the budget" if record["stopped_by_budget"] else ""
        memory = "" if record["gpu_bytes"] is None else f"; at most {record['gpu_bytes'] / 1e9:.2f} GB of GPU memory"
        blocks.append(
            f"{record['method']}: {len(epochs)} epochs in {record['seconds']:.0f} s{stopped}; "
            f"best epoch {best[-1] if best else 'none'}{memory}; chosen: {record['choices']}."
        )
    return "\n\n".join(blocks)


def _accuracy(records: list[Record]) -> str:
    header = ["method", "checkpoint", "attack", "images", "clean", "attacked", "seconds"]
    rows = [
        [
            r["method"],
            r["checkpoint"],
            r["attack"],
            f"{r['images']} of {r['of_images']}",
            f"{100 * r['clean'] / r['images']:.1f} %",
            f"{100 * r['robust'] / r['images']:.1f} %",
            f"{r['seconds']:.0f}",
        ]
        for r in records
    ]
    return table(header, rows)


def _checkpoint(records: list[Record]) -> str:
    return "\n".join(f"{r['file']}, {r['bytes']:,} bytes, SHA-256 {r['sha256']}:\n\n    {r['join']}" for r in records)


_SECTIONS: tuple[tuple[str, str, str, Callable[[list[Record]], str]], ...] = (
    ("Machine", "run", "machine", _facts),
    ("Parts", "run", "part", _times),
    ("Tests on the GPU", "tests", "outcome", _tests),
    ("Measured peaks", "speed", "peaks", _peaks),
    ("RSLAD", "speed", "training", _training),
    ("AutoAttack", "speed", "autoattack", _autoattack),
    ("Schedule of the real run", "real", "schedule", _schedule),
    ("Training of the real run", "real", "training", _epochs),
    ("Accuracy of the real run", "real", "accuracy", _accuracy),
    ("Checkpoint of the real run", "real", "checkpoint", _checkpoint),
)
