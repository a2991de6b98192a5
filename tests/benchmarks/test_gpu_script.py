"""The script for a GPU: its smoke mode as a real process, and its pure parts by property."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gpu import packed, packing
from benchmarks.gpu.clock import Clock, allot, parse_budgets
from benchmarks.gpu.part_tests import read_report
from benchmarks.gpu.results import MOST_BYTES, Results, check_folder
from benchmarks.gpu.schedule import Pace, epochs_within, read_pace
from benchmarks.gpu.settings import Settings
from benchmarks.gpu.splitting import digest, join, join_command, split

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "benchmarks" / "gpu" / "run.py"
PACK = ROOT / "benchmarks" / "gpu" / "pack.py"

seconds = st.floats(0.001, 1e5)


def _run(script: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=script.anchor)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    folder = tmp_path_factory.mktemp("smoke")
    budgets = ("--total", "2000", "--budget", "tests=600", "speed=600", "real=800")
    done = _run(SCRIPT, "--smoke", "--output", folder / "out", "--work", folder / "work", *budgets)
    return done, folder / "out"


@pytest.mark.timeout(1500)
def test_the_smoke_mode_runs_every_part(smoke: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, folder = smoke
    assert done.returncode == 0, done.stdout + done.stderr
    records = Results(folder).read()
    assert not [record for record in records if record["kind"] in ("failure", "stopped", "skipped")]
    (outcome,) = (record for record in records if record["kind"] == "outcome")
    assert outcome["counts"] == {"passed": 1}
    sides = [record["side"] for record in records if record["kind"] == "training" and record["part"] == "speed"]
    assert len(sides) == len(set(sides)) == 5
    plain = next(record for record in records if record.get("side") == "plain loop, fp32")
    assert plain["ratio_to_plain"] == 1
    assert all(record["share_of_peak"] > 0 for record in records if "share_of_peak" in record)
    attacked = [(r["method"], r["attack"], r["images"]) for r in records if r["kind"] == "accuracy"]
    assert {("rslad", "PGD-20", 8), ("rslad", "AA", 8), ("sat", "PGD-20", 8), ("sat", "AA", 8)} <= set(attacked)


@pytest.mark.timeout(1500)
def test_what_comes_back_fits_and_its_checkpoint_can_be_joined(
    smoke: tuple[subprocess.CompletedProcess[str], Path], tmp_path: Path
) -> None:
    from compressor.checkpoint import load_checkpoint

    _, folder = smoke
    assert check_folder(folder) == []
    (record,) = (record for record in Results(folder).read() if record["kind"] == "checkpoint")
    whole = tmp_path / record["file"]
    join([folder / piece for piece in record["pieces"]], whole, record["sha256"])
    assert load_checkpoint(whole).spec.name == "resnet18-0.125"
    summary = (folder / "summary.md").read_text()
    for title in ("Machine", "Tests on the GPU", "Measured peaks", "RSLAD", "AutoAttack", "Accuracy of the real run"):
        assert f"## {title}\n" in summary


def test_the_plan_computes_nothing_and_says_what_is_absent(tmp_path: Path) -> None:
    done = _run(SCRIPT, "--plan", "--packed", tmp_path, "--work", tmp_path / "work")
    assert done.returncode == 0
    assert "fill it with benchmarks/gpu/pack.py first" in done.stdout
    assert not (tmp_path / "out").exists()


def test_it_does_not_start_without_what_it_needs(tmp_path: Path) -> None:
    done = _run(SCRIPT, "--only", "real", "--device", "cpu", "--output", tmp_path / "out", "--work", tmp_path / "work")
    assert done.returncode == 2
    assert "--packed" in done.stdout
    assert not (tmp_path / "out").exists()


def test_a_part_that_breaks_is_recorded_and_stops_no_other(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "smoke-tests").write_text("in the way of a folder")
    broken = Settings(tmp_path / "out", tmp_path / "work", None, "cpu", 60.0, smoke=True)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.worker", "tests", broken.to_json()],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    (record,) = Results(tmp_path / "out").read()
    assert (record["part"], record["kind"]) == ("tests", "failure")
    assert "FileExistsError" in record["error"]
    assert "What failed" in (tmp_path / "out" / "summary.md").read_text()


def test_pack_makes_what_run_unpacks(tmp_path: Path) -> None:
    pictures = {f"{part}/cat/{number}.jpg": os.urandom(50) for part in ("train", "test") for number in range(3)}
    for name, content in pictures.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)
    with tarfile.open(tmp_path / "pictures.tar", "w") as archive:
        for part in ("train", "test"):
            archive.add(tmp_path / "in" / part, part)
    (tmp_path / "teacher.pt").write_bytes(b"weights")
    words = ("--pictures", tmp_path / "pictures.tar", "--teacher", tmp_path / "teacher.pt", "--wheels")
    done = _run(PACK, *words, "--output", tmp_path / "packed")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("It fits.")
    assert packed.what_is_absent(tmp_path / "packed") == []
    assert packed.teacher(tmp_path / "packed").read_bytes() == b"weights"
    folder = packed.unpack_pictures(tmp_path / "packed", tmp_path / "work")
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.jpg")}
    assert found == pictures
    (tmp_path / "packed" / "teacher" / "teacher.pt").write_bytes(b"short")
    assert packed.what_is_absent(tmp_path / "packed") == ["teacher/teacher.pt has 5 bytes, not 7 bytes."]
    assert _run(PACK, *words, "--output", tmp_path / "packed", "--limit-mib", "0").returncode == 1


def test_a_slim_wheel_keeps_its_code_and_loses_its_weights(tmp_path: Path) -> None:
    wheel = tmp_path / "wheels" / "thing-1-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("thing/__init__.py", "value = 7")
        archive.writestr("thing/examples/model.pt", os.urandom(10_000))
    packing.slim_wheel(wheel)
    assert wheel.stat().st_size < 1_000
    site = packed.unpack_wheels(tmp_path, tmp_path / "work")
    done = subprocess.run(
        [sys.executable, "-c", "import thing; print(thing.value)"],
        env=os.environ | {"PYTHONPATH": str(site)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "7"


@given(st.dictionaries(st.text(min_size=1), st.integers(0, 10**9)), st.integers(0, 10**9), st.integers(0, 10**10))
def test_the_account_says_whether_the_sum_fits(files: dict[str, int], tree: int, limit: int) -> None:
    text, fits = packing.account(files, tree, limit)
    assert fits == (sum(files.values()) + tree <= limit)
    assert f"{sum(files.values()) + tree:,}" in text


@given(st.binary(min_size=1, max_size=400), st.integers(1, 100))
def test_split_and_join_are_inverse(content: bytes, limit: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "weights.bin"
        source.write_bytes(content)
        pieces = split(source, folder, limit=limit) if len(content) <= 100 * limit else []
        if not pieces:
            return
        assert all(0 < piece.stat().st_size <= limit for piece in pieces)
        join(pieces, folder / "joined.bin", hashlib.sha256(content).hexdigest())
        assert (folder / "joined.bin").read_bytes() == content
        with pytest.raises(ValueError, match="missing or damaged"):
            join(pieces[:-1], folder / "short.bin", digest(source))
        assert not (folder / "short.bin").exists()


def test_the_join_command_joins(tmp_path: Path) -> None:
    source = tmp_path / "in" / "weights.bin"
    source.parent.mkdir()
    source.write_bytes(bytes(range(256)) * 10)
    split(source, tmp_path, limit=100)
    command = join_command(source.name, digest(source))
    subprocess.run(command, shell=True, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / source.name).read_bytes() == source.read_bytes()
    (tmp_path / "weights.bin.03").write_bytes(b"damaged")
    assert subprocess.run(command, shell=True, cwd=tmp_path, check=False, capture_output=True).returncode


@given(st.dictionaries(st.sampled_from("abc"), seconds, min_size=3), seconds, st.lists(st.floats(0, 2), max_size=3))
def test_parts_never_get_more_than_their_own_budget_or_what_is_left(
    budgets: dict[str, float], total: float, overruns: list[float]
) -> None:
    left = total
    for name, overrun in zip("abc", overruns, strict=False):
        given_seconds = allot(name, budgets, left, least=1.0)
        assert given_seconds <= max(min(budgets[name], left), 0)
        assert given_seconds == 0 or given_seconds >= 1
        left -= given_seconds * overrun


def test_budgets_are_read_over_the_defaults() -> None:
    assert parse_budgets(["b=2.5"], {"a": 1.0, "b": 2.0}) == {"a": 1.0, "b": 2.5}


@pytest.mark.parametrize("word", ["b", "c=1", "b=", "b=-1", "b=0", "b=nan", "b=inf", "=3"])
def test_a_budget_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r"PART=SECONDS|above zero"):
        parse_budgets([word], {"a": 1.0, "b": 2.0})


def test_a_clock_counts_down() -> None:
    now = [5.0]
    clock = Clock(10.0, now=lambda: now[0])
    assert clock.left == 10
    now[0] = 14.0
    assert clock.has(1)
    assert not clock.has(1.5)


@given(seconds, seconds, seconds, st.floats(0, 1e6), st.integers(1, 1000), st.integers(1, 300))
def test_the_schedule_is_the_longest_that_fits(
    start: float, step: float, epoch_end: float, budget: float, steps: int, most: int
) -> None:
    pace = Pace(start, step, epoch_end)
    epochs = epochs_within(budget, pace, steps, most=most)
    assert 1 <= epochs <= most
    if epochs > 1:
        assert pace.seconds(steps, epochs) <= budget * (1 + 1e-9)
    if epochs < most:
        assert pace.seconds(steps, epochs + 1) >= budget * (1 - 1e-9)


@given(st.floats(0, 1e4), st.floats(0.1, 50), st.floats(0.01, 10), st.floats(0, 30), st.integers(3, 60))
def test_a_steady_pace_is_read_exactly(begin: float, start: float, step: float, end: float, count: int) -> None:
    ends = list(accumulate([step] * (count - 1), initial=begin + start))
    pace = read_pace(begin, ends, ends[-1] + end, warm_up=1)
    assert pace.start == pytest.approx(start, abs=1e-6)
    assert pace.step == pytest.approx(step, abs=1e-6)
    assert pace.epoch_end == pytest.approx(end, abs=1e-6)


def test_a_slow_warm_up_and_one_hiccup_do_not_halve_the_schedule() -> None:
    gaps = [60.0, 30.0, *[1.0] * 20, 100.0]
    ends = list(accumulate(gaps, initial=0.0))
    assert read_pace(0.0, ends, ends[-1], warm_up=2).step < 1.1


def test_too_few_steps_cannot_be_timed() -> None:
    with pytest.raises(ValueError, match="too few"):
        read_pace(0.0, [1.0, 2.0], 3.0, warm_up=1)


def test_a_results_folder_beyond_the_limits_is_reported(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "file").touch()
    (tmp_path / "odd name").touch()
    with (tmp_path / "large").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    assert len(check_folder(tmp_path)) == 3
    for number in range(8):
        (tmp_path / f"{number}.txt").touch()
    assert any("11 files" in problem for problem in check_folder(tmp_path))


def test_a_line_that_was_cut_off_loses_no_other(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.add("speed", "skipped", what="a", why="b")
    with results.lines.open("a") as file:
        file.write('{"part": "speed", "ki')
    assert [record["what"] for record in results.read()] == ["a"]


def test_settings_travel_as_json(tmp_path: Path) -> None:
    settings = Settings(tmp_path, tmp_path / "work", None, "cuda", 12.5, profile=True)
    assert Settings.from_json(settings.to_json()) == settings
    assert json.loads(settings.to_json())["packed"] is None


def test_a_test_report_is_counted(tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    report.write_text(
        '<testsuites><testsuite><testcase classname="m" name="good"/>'
        '<testcase classname="m" name="bad"><failure message="too far off">trace</failure></testcase>'
        '<testcase classname="m" name="left out"><skipped message="no provider"/></testcase></testsuite></testsuites>'
    )
    found = read_report(report)
    assert found["counts"] == {"passed": 1, "failure": 1, "skipped": 1}
    assert [problem["message"] for problem in found["not_passed"]] == ["too far off", "no provider"]


def test_a_part_ends_when_the_script_is_killed() -> None:
    part = (
        "import os, time; from benchmarks.gpu.worker import end_with; end_with(os.getppid()); "
        "print('up', flush=True); time.sleep(600)"
    )
    script = (
        "import subprocess, sys, time; "
        "subprocess.Popen([sys.executable, '-c', sys.argv[1]], start_new_session=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, part], cwd=ROOT, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == "up\n"
        killed.kill()
        assert killed.stdout.read() == "", "the part held the pipe, so it is gone when the pipe ends"
