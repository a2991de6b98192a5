"""What the caller's own data add: the evidence is the draw that a dataset's digest fixes, or other images are tried."""

from __future__ import annotations

from collections.abc import Sequence

from compressor.contracts import Dataset
from compressor.errors import ClassMismatchError
from exporters.claim import Claim
from exporters.evidence import Evidence
from exporters.runtime import Session
from exporters.verification.held_data import draw_images, is_the_draw
from exporters.verification.record import CallersError, Record, as_caller
from exporters.verification.request import HeldData

DATA = "data"


def bind_to_data(record: Record, claim: Claim, evidence: Evidence, session: Session) -> None:
    """Where the caller holds the claim's dataset, the evidence must be its draw."""
    record.begin(DATA)
    data = record.options.data
    if data is None:
        record.note("skipped", "no dataset was given: the exporter chose the images")
        return
    dataset = open_held(data, claim, session)
    drawn = as_caller(lambda: draw_images(dataset, len(evidence)))
    if drawn.digest != claim.dataset["digest"]:
        record.note("skipped", f"{drawn.name} is not the dataset of the claim: it serves as a fresh test")
        return
    if claim.dataset["draw"] != drawn.rule:
        record.settle("undecided", f"this program does not know the draw rule {claim.dataset['draw']!r}")
    if claim.dataset["total"] != drawn.total or not is_the_draw(evidence, drawn):
        record.settle(
            "failed",
            f"the images are not the draw that the digest of {drawn.name} fixes",
            "Whoever exported the file chose the images.",
        )
    record.assurance = "dataset-bound"
    record.note("passed", f"the images are the draw of {drawn.name} that its digest fixes")


def open_held(data: HeldData, claim: Claim, session: Session) -> Dataset:
    """The caller's dataset, at the model's image size and with the claim's classes.

    Raises:
        CallersError: it has other classes: a figure on those refutes nothing.
    """
    dataset = as_caller(lambda: data.open(session.image_shape[1]))
    if len(dataset.class_names) != session.classes:
        raise CallersError(
            ClassMismatchError(
                f"the model has {session.classes} classes, and {dataset.name} has {len(dataset.class_names)}.",
                "Give the data that the model was made for.",
            )
        )
    if tuple(dataset.class_names) != claim.class_names:
        raise CallersError(
            ClassMismatchError(
                f"{dataset.name} has the classes {_few(dataset.class_names)}, and the claim's are "
                f"{_few(claim.class_names)}.",
                "Give data whose classes have the same names in the same order.",
            )
        )
    return dataset


def _few(names: Sequence[str]) -> str:
    """The first names, shortened and free of control characters: some come from the file."""
    shown = ["".join(letter for letter in name[:20] if letter.isprintable()) for name in names[:4]]
    return ", ".join(shown) + (", ..." if len(names) > 4 else "")
