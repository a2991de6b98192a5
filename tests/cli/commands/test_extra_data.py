"""Extra data at the command line: what cannot be used is one sentence and exit 2, before anything is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cli.main import main

IMAGES = np.zeros((20, 16, 16, 3), dtype=np.uint8)
LABELS = np.arange(20) % 10
TRAIN = ["train", "--model", "wideresnet-10-1", "--data", "digits", "--image-size", "16", "--run", "run"]
SMALL = ["--epochs", "1", "--train-samples", "40", "--batch-size", "16", "--eval-samples", "10", "--suite", "quick"]
COMMAND = [*TRAIN, *SMALL, "--method", "natural", "--threads", "1", "--device", "cpu"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(kind: str) -> None:
    if kind == "text":
        Path("x.npz").write_text("no archive")
    elif kind == "cut":
        np.savez("x.npz", image=IMAGES, label=LABELS)
        Path("x.npz").write_bytes(Path("x.npz").read_bytes()[:3000])
    elif kind != "absent":
        arrays = {
            "good": {"image": IMAGES, "label": LABELS},
            "float": {"image": IMAGES / 255.0, "label": LABELS},
            "shape": {"image": np.zeros((20, 3, 16, 16), np.uint8), "label": LABELS},
            "size": {"image": np.zeros((20, 32, 32, 3), np.uint8), "label": LABELS},
            "unlabelled": {"image": IMAGES},
            "classes": {"image": IMAGES, "label": LABELS + 1},
        }
        np.savez("x.npz", **arrays[kind])


@pytest.mark.parametrize(
    ("kind", "fraction", "says"),
    [
        ("absent", "0.7", "x.npz is not a file"),
        ("text", "0.7", "x.npz cannot be used: it is not an .npz archive"),
        ("cut", "0.7", "x.npz cannot be used: it is damaged or cut short"),
        ("float", "0.7", "`image` is float64 [20, 16, 16, 3], not uint8 [N, 16, 16, 3]"),
        ("shape", "0.7", "`image` is uint8 [20, 3, 16, 16], not"),
        ("size", "0.7", "`image` is uint8 [20, 32, 32, 3], not uint8 [N, 16, 16, 3]"),
        ("unlabelled", "0.7", "no array `label`, and the method needs labels"),
        ("classes", "0.7", "one of its labels is 10, and the 10 classes are 0 to 9"),
        ("good", "1", "extra_fraction is 1.0"),
        ("good", "-0.5", "extra_fraction is -0.5"),
        ("good", None, "there is extra data, and the fraction of each batch that it makes up is 0"),
        ("good", "0.99", "leaves no room"),
    ],
)
def test_what_cannot_be_used_is_a_sentence(
    kind: str, fraction: str | None, says: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(kind)
    more = [] if fraction is None else ["--extra-fraction", fraction]
    assert main([*COMMAND, "--quiet", "--extra-data", "x.npz", *more]) == 2
    out, err = capsys.readouterr()
    assert says in err
    assert out == ""
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 2, "a sentence and the way out"
    assert {path.name for path in place.iterdir()} <= {"x.npz", "cache"}
    assert not list(place.glob("cache/decoded/extra-*"))


def test_a_fraction_alone_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--extra-fraction", "0.7"]) == 2
    assert "no file is named" in capsys.readouterr().err


def test_a_run_with_extra_data_ends_well_and_resumes(capsys: pytest.CaptureFixture[str]) -> None:
    write("good")
    command = [*COMMAND, "--extra-data", "x.npz", "--extra-fraction", "0.5"]
    assert main(command) == 0
    assert "extra data: 20 labelled images; they make up 8 of the 16 of a batch" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
