"""`compress compare` on real runs, small: what is measured, what is refused, and what the table says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.main import main

DATA = ["--data", "imagefolder:pictures", "--threads", "1", "--device", "cpu"]
RUNS = ["sat-0", "sat-1", "natural-0"]


def draw_pictures(root: Path) -> None:
    """Two classes, stripes one way or the other under noise, that a small network learns within a few steps."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 20)):
        for label, name in enumerate(("across", "along")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                picture = rng.integers(0, 200, (16, 16, 3))
                stripes = (slice(None, None, 4), slice(None))[:: 1 - 2 * label]
                picture[stripes] += 55
                Image.fromarray(picture.astype(np.uint8)).save(folder / f"{number:02d}.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures and three finished runs; one of them has both checkpoints measured."""
    place = tmp_path_factory.mktemp("compare")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("COMPRESS_CACHE_DIR", str(place / "cache"))
        draw_pictures(place / "pictures")
        assert main([*train("sat", 0), "--evaluate", "both"]) == 0
        assert main(train("sat", 1)) == 0
        assert main(train("natural", 0)) == 0
    return place


def train(method: str, seed: int) -> list[str]:
    command = ["train", "--model", "wideresnet-10-1", "--method", method, "--seed", str(seed), "--epochs", "2"]
    rest = ["--batch-size", "16", "--attack-steps", "1", "--learning-rate", "0.05", "--image-size", "16"]
    return [*command, *rest, "--suite", "quick", "--run", f"{method}-{seed}", "--quiet", *DATA]


@pytest.fixture
def copy(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(place, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(place / "cache"))
    return tmp_path / "copy"


def answer(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, object]]:
    capsys.readouterr()
    code = main([*arguments, "--json"])
    out = capsys.readouterr().out
    assert out.count("\n") == 1, "exactly one object on one line"
    value: dict[str, object] = json.loads(out)
    return code, value


def evaluation(run: str, name: str = "evaluation.json") -> dict[str, dict[str, object]]:
    value: dict[str, dict[str, object]] = json.loads((Path(run) / name).read_text())
    return value


def test_every_run_is_attacked_on_the_same_images_whatever_its_seed(copy: Path) -> None:
    assert {evaluation(run)["test"]["sha256"] for run in RUNS} == {evaluation("sat-0")["test"]["sha256"]}
    assert {str(evaluation(run)["seed"]) for run in RUNS} == {"0"}
    main(["compare", *RUNS, "--evaluate", "best", "--eval-samples", "10", *DATA])
    subsets = {evaluation(run)["test"]["sha256"] for run in RUNS}
    assert len(subsets) == 1
    assert subsets != {evaluation("sat-0", "evaluation.last.json")["test"]["sha256"]}


def test_measuring_writes_what_is_missing_and_nothing_again(copy: Path) -> None:
    before = {path: path.read_bytes() for path in copy.glob("*/evaluation*")}
    assert main(["compare", *RUNS, "--evaluate", "both", *DATA]) == 0
    for run in RUNS:
        assert evaluation(run, "evaluation.last.json")["checkpoint"]["which"] == "last"
        assert evaluation(run, "evaluation.last.json")["checkpoint"]["epoch"] == 2
    assert {path: path.read_bytes() for path in before} == before


def test_the_same_weights_are_attacked_once(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy("sat-1/best.safetensors", "sat-1/last.safetensors")

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was attacked again")

    monkeypatch.setattr("cli.evaluation.attack_images", never)
    assert main(["compare", "sat-1", "--evaluate", "both", *DATA, "--debug"]) == 0
    best, last = evaluation("sat-1"), evaluation("sat-1", "evaluation.last.json")
    assert last["bits"] == best["bits"]
    assert last["checkpoint"] == {**best["checkpoint"], "which": "last"}


def test_a_stopped_measurement_goes_on(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compressor import evaluation as engine
    from compressor.errors import Interrupted

    state = Path("sat-1/evaluation.last.quick@1.state.json")

    def stop_after_the_first_batch(*_: object) -> None:
        if state.is_file():
            raise Interrupted(15)

    with monkeypatch.context() as patch:
        patch.setattr("compressor.training.interruption.StopRequest.raise_if_set", stop_after_the_first_batch)
        assert main(["compare", "sat-1", "--evaluate", "both", *DATA]) == 143
    assert not Path("sat-1/evaluation.last.json").exists()
    bits = json.loads(state.read_text())["bits"]
    assert "?" not in bits["clean"], "what was done is kept"

    judged = []
    errs = engine._errs
    monkeypatch.setattr("compressor.evaluation._errs", lambda *a: judged.append(1) or errs(*a))
    assert main(["compare", "sat-1", "--evaluate", "both", *DATA]) == 0
    assert evaluation("sat-1", "evaluation.last.json")["bits"]["clean"] == bits["clean"]
    assert len(judged) == 2, "one batch for each attack, none for the natural images again"
