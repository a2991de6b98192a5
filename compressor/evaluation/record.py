"""What was measured of a run's checkpoint, kept with its bits, so that runs can be compared image by image.

``evaluation.json`` (the best checkpoint) and ``evaluation.last.json`` (the last one) hold the fields of ``Report`` and

    schema       "compress.evaluation/1"
    checkpoint   which, sha256, bytes, epoch, selection (how the best one was chosen)
    model        name, parameters, macs (multiply-adds of one forward for one image; null where they can't be counted)
    test         dataset, sha256 (of the images attacked, in their order, with labels and class names)
    bits         column name -> one character for each image: 1 right, 0 wrong
    labels       the right class of each image, with spaces between
    predictions  column name -> what the model says of each image: as ``Report.predictions``, written as labels are
    fell_to      column name -> stages (names), images (the number of the stage that broke each; -1: none)

The last three are absent from files of earlier versions, and ``labels`` is null where the report has none.
Accuracies and intervals are there for people; a reader computes them from the bits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from compressor.core.errors import CompressError, UnreadableRunError
from compressor.core.types import Threat
from compressor.evaluation.report import Alarm, Bits, Classes, Report
from compressor.system.files import write_json

CheckpointName = Literal["best", "last"]

SCHEMA = "compress.evaluation/1"

_CLEAN = "clean"
_LARGEST_BYTES = 1 << 26


@dataclass(frozen=True)
class MeasuredCheckpoint:
    """The checkpoint that was attacked.

    Attributes:
        which: the run's best or last one.
        sha256: of its file.
        bytes: the size of its file.
        epoch: after how many epochs it was saved; ``None`` where the file does not say.
        selection: the split, its number of images, and how many of them the model gets right, clean and attacked.
        model: the network's name.
        parameters: how many numbers training changed.
        macs: multiply-adds of one forward for one image; ``None`` where they can't be counted.
    """

    which: CheckpointName
    sha256: str
    bytes: int
    epoch: int | None
    selection: Mapping[str, Any]
    model: str
    parameters: int
    macs: int | None


@dataclass(frozen=True, eq=False)
class EvaluationRecord:
    """A report with what it is about.

    Attributes:
        measured: the checkpoint.
        dataset: the name of the data.
        test_sha256: the digest of the images attacked; see ``datasets.digest``.
        report: the bits.
    """

    measured: MeasuredCheckpoint
    dataset: str
    test_sha256: str
    report: Report

    def terms(self) -> dict[str, Any]:
        """What two evaluations must share for their accuracies to be comparable, by words that people know."""
        return {
            "suite": self.report.suite,
            "threat": str(self.report.threat),
            "images": self.report.samples,
            "test images' digest": self.test_sha256,
            "evaluation seed": self.report.seed,
            "mode": self.report.mode,
        }

    def to_json(self) -> dict[str, Any]:
        """The fields of the file; see the module."""
        measured, bits = self.measured, {_CLEAN: self.report.clean, **self.report.attacks}
        return {
            **self.report.to_json(),
            "schema": SCHEMA,
            "checkpoint": {
                "which": measured.which,
                "sha256": measured.sha256,
                "bytes": measured.bytes,
                "epoch": measured.epoch,
                "selection": dict(measured.selection),
            },
            "model": {"name": measured.model, "parameters": measured.parameters, "macs": measured.macs},
            "test": {"dataset": self.dataset, "sha256": self.test_sha256},
            "bits": {name: "".join("01"[int(bit)] for bit in column) for name, column in bits.items()},
            "labels": _written(self.report.labels) if len(self.report.labels) else None,
            "predictions": {name: _written(column) for name, column in self.report.predictions.items()},
            "fell_to": {
                name: {"stages": list(stages), "images": _written(images)}
                for name, (stages, images) in self.report.broken_by.items()
            },
        }

    def write(self, path: Path) -> None:
        """Write it atomically.

        Raises:
            WriteError: disk full or no permission.
        """
        write_json(path, self.to_json())


def read_evaluation(path: Path) -> EvaluationRecord:
    """Read what ``EvaluationRecord.write`` wrote.

    Raises:
        UnreadableRunError: absent, damaged, or written by a version that kept no bits.
    """
    way_out = f"Measure it: compress compare --evaluate both {path.parent}."
    if not path.is_file():
        raise UnreadableRunError(f"there is no {path}.", way_out)
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise ValueError("it is larger than any evaluation")
        document = json.loads(path.read_bytes())
        if not isinstance(document, dict):
            raise ValueError("it is not an object")
        schema = document.get("schema")
        if schema == "compress.attack/1":
            raise UnreadableRunError(f"{path} is of an earlier version, which kept no bits.", way_out)
        if schema != SCHEMA:
            raise ValueError(f"its schema is {str(schema)[:40]!r}, and this version reads {SCHEMA!r}")
        return _parse(document)
    except UnreadableRunError:
        raise
    except KeyError as error:
        raise UnreadableRunError(f"{path} is damaged: it has no {error}.", way_out) from None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, CompressError) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise UnreadableRunError(f"{path} is damaged: {reason}.", way_out) from None


def _parse(document: dict[str, Any]) -> EvaluationRecord:
    checkpoint, model, test = document["checkpoint"], document["model"], document["test"]
    if checkpoint["which"] not in ("best", "last"):
        raise ValueError("it does not say which checkpoint it is of")
    bits = {str(name): _bits(text, document["samples"]) for name, text in document["bits"].items()}
    columns, clean = list(bits), bits.pop(_CLEAN)
    if not bits:
        raise ValueError("it holds no attack")
    samples, text = len(clean), document.get("labels")
    labels = np.zeros(0, np.int64) if text is None else _classes(text, samples, least=0)
    predictions = {name: _classes(text, samples) for name, text in document.get("predictions", {}).items()}
    if list(predictions) != (columns if len(labels) else []):
        raise ValueError("its predictions are not one list for each column")
    broken_by = {name: _stages(column, samples) for name, column in document.get("fell_to", {}).items()}
    if not set(broken_by) <= set(bits):
        raise ValueError("it tells the stages of a column that it does not have")
    return EvaluationRecord(
        MeasuredCheckpoint(
            which=checkpoint["which"],
            sha256=_typed(checkpoint["sha256"], str),
            bytes=_typed(checkpoint["bytes"], int),
            epoch=None if checkpoint["epoch"] is None else _typed(checkpoint["epoch"], int),
            selection=dict(checkpoint["selection"]),
            model=_typed(model["name"], str),
            parameters=_typed(model["parameters"], int),
            macs=None if model["macs"] is None else _typed(model["macs"], int),
        ),
        _typed(test["dataset"], str),
        _typed(test["sha256"], str),
        Report(
            Threat(document["norm"], _typed(document["eps"], str)),
            _typed(document["suite"], str),
            _typed(document["seed"], int),
            document["mode"],
            clean,
            bits,
            tuple(
                Alarm(str(alarm["name"]), str(alarm["detail"]), str(alarm.get("meaning", "")))
                for alarm in document["alarms"]
            ),
            labels,
            predictions,
            broken_by,
            {str(name): _typed(count, int) for name, count in document.get("outside", {}).items()},
        ),
    )


def _bits(text: Any, samples: Any) -> Bits:
    if not isinstance(text, str) or not text or len(text) != samples or set(text) - set("01"):
        raise ValueError("its bits are not one 0 or 1 for each image")
    return np.array([letter == "1" for letter in text])


def _written(classes: Classes) -> str:
    return " ".join(map(str, classes.tolist()))


def _classes(text: Any, samples: int, *, least: int = -1) -> Classes:
    if not isinstance(text, str) or re.fullmatch(r"-?\d{1,9}( -?\d{1,9})*", text, re.ASCII) is None:
        raise ValueError("its labels or predictions are not numbers with spaces between")
    classes = np.array([int(number) for number in text.split(" ")], dtype=np.int64)
    if len(classes) != samples or classes.min() < least:
        raise ValueError("its labels or predictions are not one class for each image")
    return classes


def _stages(column: Any, samples: int) -> tuple[tuple[str, ...], Classes]:
    stages, images = tuple(_typed(name, str) for name in column["stages"]), _classes(column["images"], samples)
    if images.max() >= len(stages):
        raise ValueError("an image was broken by a stage that it does not name")
    return stages, images


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{str(value)[:40]!r} is not of type {kind.__name__}")
    return value
