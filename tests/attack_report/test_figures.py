"""Pictures are drawn for any number of classes, channels and pixels, and the same data gives the same bytes."""

from __future__ import annotations

import io
import sys

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from compressor.attack_report.classes import ConfusionMatrix
from compressor.attack_report.figures import figures, require_matplotlib
from compressor.attack_report.figures.canvas import DPI, short, to_png
from compressor.attack_report.figures.confusion import draw_confusion
from compressor.attack_report.figures.gallery import draw_gallery
from compressor.core.errors import MissingPackageError
from compressor.core.types import Threat

from .conftest import make_findings, make_report


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def test_the_same_findings_give_the_same_bytes_whatever_the_users_style() -> None:
    first = figures(make_findings())
    assert set(first) == {"curve.png", "norms.png", "confusion.png", "gallery.png"}
    with mpl.rc_context({"font.size": 30, "figure.facecolor": "black"}):
        before = dict(mpl.rcParams)
        assert figures(make_findings()) == first
        assert dict(mpl.rcParams) == before
    for data in first.values():
        picture = opened(data)
        assert "Software" not in picture.info
        assert "date" not in {key.lower() for key in picture.info}
        assert len(np.unique(np.asarray(picture))) > 5  # something is drawn


def test_a_figure_has_the_size_that_was_asked_for() -> None:
    assert opened(to_png(lambda figure: None, 2, 1)).size == (2 * DPI, DPI)


def test_what_there_is_no_data_for_is_left_out() -> None:
    made = figures(make_findings(examples=(), report=make_report(predictions={})))
    assert set(made) == {"curve.png", "norms.png"}


@pytest.mark.parametrize("classes", [2, 30, 100])
def test_a_confusion_of_any_size_shows_its_diagonal(classes: int) -> None:
    counts = np.diag(np.full(classes, 7))
    picture = np.asarray(
        opened(draw_confusion(ConfusionMatrix(counts, 0), [f"${k}" for k in range(classes)], Threat()))
    )
    # The darkest blue of the map fills as many cells as there are classes, and the bar's end.
    dark = (picture[..., 2] > picture[..., 0] + 60) & (picture[..., 0] < 20)
    assert dark.sum() > classes * 20


@pytest.mark.parametrize(("shape", "threat"), [((1, 8, 8), Threat("L2", "0.5")), ((3, 224, 224), Threat())])
def test_a_gallery_takes_grey_and_large_pictures(shape: tuple[int, int, int], threat: Threat) -> None:
    findings = make_findings(shape=shape)
    one = opened(draw_gallery(findings.examples, findings.about.class_names, threat))
    three = opened(draw_gallery(findings.examples * 3, findings.about.class_names, threat))
    assert three.width == one.width
    assert three.height > 2 * one.height


def test_a_long_name_keeps_both_ends() -> None:
    assert short("frog") == "frog"
    assert short("class number 12") != short("class number 13")
    assert len(short("a" * 40)) == 14


def test_without_matplotlib_a_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingPackageError, match="matplotlib"):
        require_matplotlib()
