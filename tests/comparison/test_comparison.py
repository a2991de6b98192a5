"""Comparing runs whose bits are made up, so that every number of the table is known beforehand."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.output.comparison_formats import to_markdown
from compressor.comparison import Comparison, FinishedRun, compare_runs, open_run
from compressor.core.errors import MissingInputError, UnreadableRunError, UsageError
from compressor.core.types import Threat
from compressor.evaluation.record import CheckpointName, EvaluationRecord, MeasuredCheckpoint
from compressor.evaluation.report import Alarm, Report
from compressor.numerics.statistics import holm, mcnemar, paired_t_interval, welch_t_interval
from compressor.runs.recipe import Recipe
from compressor.runs.recipe_files import to_toml
from compressor.runs.run_folder import RunFolder
from compressor.system.files import write_json, write_text

N = 100
Columns = Mapping[str, Sequence[int]]


def right(*images: int | range) -> list[int]:
    """Bits of N images of which these are classified correctly."""
    chosen = set(itertools.chain.from_iterable([i] if isinstance(i, int) else i for i in images))
    return [int(i in chosen) for i in range(N)]


def make_run(
    path: Path,
    *,
    method: str = "sat",
    seed: int = 0,
    best: Columns | None = None,
    last: Columns | None = None,
    inputs: Mapping[str, Any] | None = None,
    terms: Mapping[str, Any] | None = None,
    **recipe: Any,
) -> FinishedRun:
    """A finished run's folder, without anything that takes training."""
    folder = RunFolder(path)
    settings = Recipe(method=method, model="resnet18-0.25", seed=seed, epochs=3, **recipe)
    description = {**settings.to_dict(), "inputs": {"dataset": "digits", "train_sha256": "0" * 64, **(inputs or {})}}
    write_text(folder.recipe, to_toml(description))
    write_text(folder.metrics, "".join(json.dumps({"epoch": epoch}) + "\n" for epoch in (1, 2, 3)))
    blocks: list[tuple[CheckpointName, Columns | None]] = [("best", best), ("last", last)]
    for which, columns in blocks:
        if columns is not None:
            make_record(which, columns, **(terms or {})).write(folder.evaluation_of(which))
    return open_run(path)


def make_record(
    which: CheckpointName, columns: Columns, suite: str = "paper@1", split: str = "validation"
) -> EvaluationRecord:
    bits = {name: np.array(column, dtype=bool) for name, column in columns.items()}
    clean = bits.pop("clean")
    measured = MeasuredCheckpoint(
        which, "ab" * 32, 1000, 3, {"split": split, "samples": 9}, "resnet18-0.25", 700_000, 35_000_000
    )
    return EvaluationRecord(measured, "digits", "cd" * 32, Report(Threat(), suite, 0, "alone", clean, bits))


def block(clean: Sequence[int], fgsm: Sequence[int], aa: Sequence[int]) -> Columns:
    return {"clean": clean, "FGSM": fgsm, "AA": aa}


SOME = block(right(range(80)), right(range(50)), right(range(40)))


def test_accuracies_and_the_worst_case(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", best=block(right(range(80)), right(range(10, 60)), right(range(40))))
    found = compare_runs([run])
    (row,) = found.rows
    assert found.columns == ("clean", "FGSM", "AA", "worst case")
    rates = {column: row.accuracy("best", column) for column in found.columns}
    assert rates == {"clean": (0.8, None), "FGSM": (0.5, None), "AA": (0.4, None), "worst case": (0.3, None)}
    assert row.accuracy("last", "clean") is None
    assert not found.has("last")
    assert found.difference("best", row, "AA") is None, "nothing to compare it with"


def test_runs_that_differ_only_in_the_seed_are_one_row(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / f"s{seed}", seed=seed, best=block(right(range(80)), right(range(50)), right(range(k))))
        for seed, k in ((2, 44), (0, 40), (1, 42))
    ]
    (row,) = compare_runs(runs).rows
    assert row.seeds == (0, 1, 2)
    assert row.accuracy("best", "AA") == pytest.approx((0.42, 0.02)), "divided by n - 1"
    assert row.accuracy("best", "clean") == (0.8, 0.0)


def test_a_row_says_what_tells_it_from_others(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "a", best=SOME),
        make_run(tmp_path / "b", best=SOME, learning_rate=0.05),
        make_run(tmp_path / "c", best=SOME, method="trades", learning_rate=0.05),
    ]
    assert [row.label for row in compare_runs(runs).rows] == [
        "sat (learning_rate 0.1)", "sat (learning_rate 0.05)", "trades",
    ]  # fmt: skip


def test_teachers_are_told_apart_by_name_else_by_digest(tmp_path: Path) -> None:
    small, large = (
        {"teacher": "wrn-16", "teacher_sha256": "aa" * 32},
        {"teacher": "wrn-34", "teacher_sha256": "bb" * 32},
    )
    same_name = {**small, "teacher_sha256": "cc" * 32}
    rows = compare_runs([make_run(tmp_path / n, best=SOME, inputs=i) for n, i in (("a", small), ("b", large))]).rows
    assert [row.told for row in rows] == ["teacher wrn-16", "teacher wrn-34"]
    rows = compare_runs([open_run(tmp_path / "a"), make_run(tmp_path / "c", best=SOME, inputs=same_name)]).rows
    assert [row.told for row in rows] == ["teacher_sha256 aaaaaaaa", "teacher_sha256 cccccccc"]


def test_a_field_that_an_older_version_did_not_know_has_its_default(tmp_path: Path) -> None:
    new, old = make_run(tmp_path / "new", best=SOME, seed=1), make_run(tmp_path / "old", best=SOME)
    text = old.folder.recipe.read_text()
    assert "nesterov = false\n" in text
    old.folder.recipe.write_text(text.replace("nesterov = false\n", ""))
    assert len(compare_runs([new, open_run(tmp_path / "old")]).rows) == 1


def three_rows(tmp_path: Path) -> Comparison:
    base = make_run(tmp_path / "a", best=SOME, last=SOME)
    better = make_run(tmp_path / "b", method="trades", best=block(right(range(80)), right(range(62)), right(range(47))))
    worse = make_run(tmp_path / "c", method="mart", best=block(right(range(75)), right(range(50)), right(range(30))))
    return compare_runs([base, better, worse])


def test_two_runs_are_compared_by_mcnemar_and_holm(tmp_path: Path) -> None:
    found = three_rows(tmp_path)
    base, better, worse = found.rows
    assert found.baseline is base
    raw = [mcnemar(7, 0), mcnemar(0, 10)]
    for row, p_value, adjusted, difference in zip((better, worse), raw, holm(raw), (0.07, -0.1), strict=True):
        one = found.difference("best", row, "AA")
        assert one is not None
        assert (one.test, one.p_value, one.adjusted) == ("mcnemar", p_value, adjusted)
        assert one.difference == pytest.approx(difference)
        assert one.marked
    unmarked = found.difference("best", worse, "clean")
    assert unmarked is not None
    assert unmarked.p_value == mcnemar(0, 5) == 2 / 2**5
    assert not unmarked.marked
    assert found.difference("last", better, "AA") is None, "its last checkpoint is not measured"


def test_only_discordant_images_count(tmp_path: Path) -> None:
    """Equal accuracies on other images, and unequal ones on few: neither is decided by the rates alone."""
    base = make_run(tmp_path / "a", best=SOME)
    other = make_run(
        tmp_path / "b", method="trades", best=block(right(range(80)), right(range(50, 100)), right(range(36), 90, 91))
    )
    found = compare_runs([base, other])
    one = found.difference("best", found.rows[1], "FGSM")
    assert one is not None
    assert (one.difference, one.p_value, one.pairs[0].discordant) == (0, 1, (50, 50))
    one = found.difference("best", found.rows[1], "AA")
    assert one is not None
    assert (one.pairs[0].discordant, one.p_value) == ((2, 4), mcnemar(2, 4))


def test_with_two_seeds_every_pair_of_runs_must_agree(tmp_path: Path) -> None:
    base = [
        make_run(tmp_path / f"a{s}", seed=s, best=block(SOME["clean"], SOME["FGSM"], right(range(40)))) for s in (0, 1)
    ]
    other = [
        make_run(
            tmp_path / f"b{s}", method="trades", seed=s, best=block(SOME["clean"], right(range(f)), right(range(k)))
        )
        for s, f, k in ((0, 62, 55), (1, 38, 48))
    ]
    found = compare_runs([*base, *other])
    row = found.rows[1]
    one = found.difference("best", row, "AA")
    assert one is not None
    assert (one.test, one.p_value) == ("mcnemar", mcnemar(8, 0)), "the larger of two p-values"
    assert [pair.seeds for pair in one.pairs] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    one = found.difference("best", row, "FGSM")
    assert one is not None
    assert one.p_value == 1, "one seed better, one worse"


@pytest.mark.parametrize(
    ("seeds", "test"), [((0, 1, 2), "paired-t"), ((3, 4, 5), "welch-t"), ((0, 1, 2, 3), "welch-t")]
)
def test_three_seeds_each_are_compared_by_a_t_interval(tmp_path: Path, seeds: tuple[int, ...], test: str) -> None:
    counts, others = [40, 42, 41], [46, 49, 47, 48][: len(seeds)]
    base = [
        make_run(tmp_path / f"a{s}", seed=s, best=block(SOME["clean"], SOME["FGSM"], right(range(k))))
        for s, k in zip((0, 1, 2), counts, strict=True)
    ]
    other = [
        make_run(tmp_path / f"b{s}", method="trades", seed=s, best=block(SOME["clean"], SOME["FGSM"], right(range(k))))
        for s, k in zip(seeds, others, strict=True)
    ]
    found = compare_runs([*base, *other])
    one = found.difference("best", found.rows[1], "AA")
    expected = paired_t_interval(others, counts) if test == "paired-t" else welch_t_interval(others, counts)
    assert one is not None
    assert one.test == test
    assert one.p_value == expected.p_value < 0.05
    assert one.interval == pytest.approx((expected.low / N, expected.high / N))
    assert one.marked
    constant = found.difference("best", found.rows[1], "clean")
    assert constant is not None
    assert (constant.difference, constant.p_value, constant.marked) == (0, 1, False)


def test_the_baseline_may_be_named_and_joins_the_table(tmp_path: Path) -> None:
    found = three_rows(tmp_path)
    runs = [row.runs[0] for row in found.rows]
    assert compare_runs(runs, runs[2]).baseline.method == "mart"
    joined = compare_runs(runs[:2], runs[2])
    assert [row.method for row in joined.rows] == ["mart", "sat", "trades"]
    assert joined.baseline is joined.rows[0]


def test_what_was_measured_otherwise_is_not_compared(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", best=SOME)
    other = make_run(tmp_path / "b", method="trades", best=SOME, terms={"suite": "quick@1"})
    with pytest.raises(UsageError, match=r"not measured alike \(suite paper@1 and quick@1\)"):
        compare_runs([first, other])


@pytest.mark.parametrize(
    "change",
    [
        {"test_sha256": "ef" * 32},
        {"report": {"threat": Threat(eps="4/255")}},
        {"report": {"seed": 1}},
        {"report": {"mode": "cascade"}},
    ],
)
def test_every_term_counts(tmp_path: Path, change: dict[str, Any]) -> None:
    first, other = make_run(tmp_path / "a", best=SOME), make_run(tmp_path / "b", method="trades", best=SOME)
    record = make_record("best", SOME)
    changed = {**change, "report": dataclasses.replace(record.report, **change.get("report", {}))}
    dataclasses.replace(record, **changed).write(other.folder.evaluation)
    with pytest.raises(UsageError, match="not measured alike"):
        compare_runs([first, other])


def test_a_last_checkpoint_measured_otherwise_is_left_out_with_a_note(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", best=SOME)
    make_record("last", SOME, suite="quick@1").write(run.folder.last_evaluation)
    found = compare_runs([run])
    assert not found.has("last")
    assert "quick@1" in found.notes[0]


def test_alarms_and_a_choice_on_test_images_are_warned_of(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", best=SOME, last=SOME)
    make_record("best", SOME, split="test").write(run.folder.evaluation)
    record = make_record("last", SOME)
    alarmed = dataclasses.replace(record.report, alarms=(Alarm("more-steps-weaker", "gradients may be masked"),))
    dataclasses.replace(record, report=alarmed).write(run.folder.last_evaluation)
    found = compare_runs([run])
    distrusted, chosen = found.warnings
    assert "chose its best checkpoint on test images" in chosen
    assert "last: not trustworthy: more-steps-weaker: gradients may be masked" in distrusted
    assert chosen in to_markdown(found)


def test_the_same_run_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the same run twice"):
        compare_runs([make_run(tmp_path / name, best=SOME) for name in ("a", "b")])


def test_an_evaluation_of_another_checkpoint_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", best=SOME)
    run.folder.best.write_bytes(b"trained on since")
    with pytest.raises(UnreadableRunError, match=r"another best\.safetensors"):
        compare_runs([run])


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", best=SOME)
    write_text(run.folder.metrics, '{"epoch": 2}\n')
    with pytest.raises(UnreadableRunError, match="2 of 3 epochs"):
        open_run(tmp_path / "a")
    run.folder.metrics.unlink()
    with pytest.raises(UnreadableRunError, match="0 of 3 epochs"):
        open_run(tmp_path / "a")
    write_text(run.folder.metrics, "{\n")
    with pytest.raises(UnreadableRunError, match="is damaged"):
        open_run(tmp_path / "a")


def test_what_is_no_run_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="there is no folder"):
        open_run(tmp_path / "absent")
    with pytest.raises(MissingInputError, match="is not a run folder"):
        open_run(tmp_path)
    for text in ("epochs = ", "epochs = 3\n", 'method = "sat"\nmodel = "x"\neps = "8/0"\n', "inputs = 3\n"):
        (tmp_path / "recipe.toml").write_text(text)
        with pytest.raises(UnreadableRunError, match=r"recipe\.toml is damaged"):
            open_run(tmp_path)


def test_its_json_is_json(tmp_path: Path) -> None:
    value = three_rows(tmp_path).to_json()
    write_json(tmp_path / "x.json", value)
    row = json.loads((tmp_path / "x.json").read_text())["rows"][1]
    assert row["best"]["AA"]["values"] == [0.47]
    assert row["best"]["AA"]["difference"]["pairs"] == [{"seeds": [0, 0], "discordant": [7, 0]}]
    assert row["last"] is None
    assert (row["parameters"], row["macs"], row["onnx_bytes"]) == (700_000, 35_000_000, None)


def test_footnotes_name_the_test_the_baseline_and_the_correction(tmp_path: Path) -> None:
    found = three_rows(tmp_path)
    text = to_markdown(found)
    assert "| 47.0* |" in text
    (note,) = [line for line in text.splitlines() if "McNemar" in line]
    assert note.startswith("- \\* differs from resnet18-0.25 sat, p < 0.05 in McNemar's exact test")
    assert "Holm's correction over the 2 rows" in note
    plain = compare_runs([found.rows[0].runs[0], make_run(tmp_path / "d", method="kd", best=SOME)])
    assert "Nothing is marked as differing from resnet18-0.25 sat, p >= 0.05" in to_markdown(plain)
    assert "*" not in to_markdown(plain)


def test_a_t_interval_is_told(tmp_path: Path) -> None:
    runs = [
        make_run(
            tmp_path / f"{m}{s}", method=m, seed=s, best=block(SOME["clean"], SOME["FGSM"], right(range(k + s * j)))
        )
        for m, k, j in (("sat", 40, 1), ("trades", 46, 2))
        for s in (0, 1, 2)
    ]
    text = to_markdown(compare_runs(runs))
    assert "a t test of the seeds, in pairs" in text
    # Differences 6, 7, 8: mean 7, deviation 1, t(2) = 4.303, so 7 +- 2.48.
    assert "resnet18-0.25 trades, best, worst case: +7.0 points, 95 % interval +4.5 to +9.5." in text
    assert "| 41.0 ± 1.0 |" in text
