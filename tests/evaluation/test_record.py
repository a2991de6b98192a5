"""What is kept of an evaluation: read back it is the same, and whatever is wrong with it is one plain sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.core.errors import UnreadableRunError
from compressor.core.types import Threat
from compressor.evaluation.record import EvaluationRecord, MeasuredCheckpoint, read_evaluation
from compressor.evaluation.report import Alarm, Report


@pytest.fixture
def record() -> EvaluationRecord:
    rng = np.random.default_rng(0)
    bits = {name: rng.random(50) < rate for name, rate in (("clean", 0.9), ("FGSM", 0.6), ("AA", 0.4))}
    predictions = {name: rng.integers(-1, 10, 50) for name in bits}
    stage = np.where(rng.random(50) < 0.5, rng.integers(0, 2, 50), -1)
    clean = bits.pop("clean")
    report = Report(
        Threat("Linf", "8/255"), "paper@1", 0, "alone", clean, bits, (Alarm("masked", "perhaps", "so beware"),),
        rng.integers(0, 10, 50), predictions, {"AA": (("apgd-ce", "square"), stage)}, {"FGSM": 0, "AA": 3},
    )  # fmt: skip
    selection = {"split": "validation", "samples": 20, "clean_correct": 9, "robust_correct": 5}
    return EvaluationRecord(
        MeasuredCheckpoint("last", "ab" * 32, 1234, 7, selection, "resnet18-0.25", 700_000, 35_000_000),
        "digits",
        "cd" * 32,
        report,
    )


def test_read_back_it_is_the_same(record: EvaluationRecord, tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    record.write(path)
    back = read_evaluation(path)
    assert (back.measured, back.dataset, back.test_sha256) == (record.measured, record.dataset, record.test_sha256)
    assert back.terms() == record.terms()
    assert (back.report.clean == record.report.clean).all()
    assert list(back.report.attacks) == ["FGSM", "AA"], "in the suite's order"
    assert back.to_json() == record.to_json()
    np.testing.assert_array_equal(back.report.labels, record.report.labels)
    for name, said in record.report.predictions.items():
        np.testing.assert_array_equal(back.report.predictions[name], said)
    assert back.report.broken_by["AA"][0] == ("apgd-ce", "square")
    np.testing.assert_array_equal(back.report.broken_by["AA"][1], record.report.broken_by["AA"][1])
    assert back.report.alarms == record.report.alarms


def test_a_file_of_an_earlier_version_is_read(record: EvaluationRecord, tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    later = (
        "trustworthy",
        "unique",
        "broken_by",
        "outside",
        "classes",
        "confusion",
        "labels",
        "predictions",
        "fell_to",
    )
    document = {name: value for name, value in record.to_json().items() if name not in later}
    document["alarms"] = [{"name": "masked", "detail": "perhaps"}]
    path.write_text(json.dumps(document))
    back = read_evaluation(path)
    assert (back.report.clean == record.report.clean).all()
    assert back.report.alarms == (Alarm("masked", "perhaps"),)
    value = back.to_json()
    assert value["classes"] is value["confusion"] is value["labels"] is None
    assert value["unique"] == record.report.unique_successes
    back.write(path)
    assert read_evaluation(path).to_json() == value


def test_accuracies_come_from_the_bits_not_from_what_the_file_says(record: EvaluationRecord, tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(record.to_json() | {"clean_accuracy": 1.0, "robust_accuracy": 1.0}))
    assert read_evaluation(path).report.robust_accuracy == record.report.robust_accuracy < 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d | {"schema": "compress.evaluation/2"}, "its schema is 'compress.evaluation/2'"),
        (lambda d: d | {"schema": "compress.attack/1"}, "an earlier version"),
        (lambda d: {k: v for k, v in d.items() if k != "bits"}, "has no 'bits'"),
        (lambda d: d | {"samples": 51}, "one 0 or 1 for each image"),
        (lambda d: d | {"bits": {"clean": "0" * 50, "AA": "2" * 50}}, "one 0 or 1 for each image"),
        (lambda d: d | {"bits": {"clean": "0" * 50}}, "holds no attack"),
        (lambda d: d | {"eps": "8/0"}, "eps '8/0' is not a number"),
        (lambda d: d | {"seed": "0"}, "is not of type int"),
        (lambda d: d | {"test": []}, "damaged"),
        (lambda d: d | {"checkpoint": d["checkpoint"] | {"which": "first"}}, "does not say which checkpoint"),
        (lambda d: d | {"labels": "1 2 3"}, "one class for each image"),
        (lambda d: d | {"labels": d["labels"] + " x"}, "numbers with spaces between"),
        (lambda d: d | {"labels": "-" + d["labels"]}, "one class for each image"),
        (lambda d: d | {"labels": None}, "one list for each column"),
        (lambda d: d | {"predictions": {"clean": d["labels"]}}, "one list for each column"),
        (lambda d: d | {"predictions": d["predictions"] | {"AA": "1"}}, "one class for each image"),
        (lambda d: d | {"fell_to": {"AA": {"stages": ["one"], "images": d["labels"]}}}, "stage that it does not name"),
        (lambda d: d | {"fell_to": {"CW": d["fell_to"]["AA"]}}, "a column that it does not have"),
        (lambda d: d | {"outside": {"AA": "many"}}, "is not of type int"),
        (lambda d: [d], "is not an object"),
    ],
)
def test_a_damaged_file_is_one_sentence(
    record: EvaluationRecord, tmp_path: Path, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(change(record.to_json())))
    with pytest.raises(UnreadableRunError, match=r"evaluation\.json") as caught:
        read_evaluation(path)
    assert says in caught.value.message
    assert "--evaluate" in caught.value.hint


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"null", b"[" * 100_000])
def test_what_is_no_json_is_one_sentence(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "evaluation.json"
    path.write_bytes(data)
    with pytest.raises(UnreadableRunError, match="damaged"):
        read_evaluation(path)


def test_an_absent_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnreadableRunError, match="there is no"):
        read_evaluation(tmp_path / "evaluation.json")
