"""The verifier in a process of its own: the same verdict, and an answer whatever becomes of that process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from compressor.core.errors import CompressError, MissingInputError, UnknownNameError, UsageError
from compressor.core.types import DatasetSpec
from exporters.claim.claim import model_bytes, model_digest, read_claim, with_claim
from exporters.claim.evidence import evidence_path
from exporters.isolation import Listener, isolated, messages, verify_isolated
from exporters.isolation.messages import MalformedMessageError
from exporters.verification import examination
from exporters.verification.examination import examine
from exporters.verification.request import Request, Watcher
from exporters.verification.verdict import BrokenImage, Verdict

ROOT = Path(__file__).parents[3]
GB = 10**9


def request_for(path: Path, **changes: Any) -> Request:
    return replace(Request(path, seed=1, threads=1), **changes)


def here(request: Request) -> Verdict:
    """The verdict of this very process, its claim as JSON has it: a list where Python has a tuple."""
    verdict = examine(request, Watcher())
    return replace(verdict, claim=json.loads(json.dumps(verdict.claim)))


def copy(linear: Path, folder: Path) -> Path:
    for path in (linear, evidence_path(linear)):
        shutil.copy(path, folder / path.name)
    return folder / linear.name


def reseal(path: Path, model: onnx.ModelProto, **changes: Any) -> Path:
    """Write a model whose digests are right, whatever it is."""
    claim = read_claim(onnx.ModelProto.FromString(path.read_bytes()))
    assert claim is not None
    claim = replace(claim, **{"model": model_digest(model)} | changes).sealed()
    path.write_bytes(model_bytes(with_claim(model, claim)))
    return path


def children(pid: int | str = "self") -> list[int]:
    """The processes that another one has started, zombies too."""
    tasks = Path(f"/proc/{pid}/task")
    return [int(word) for task in tasks.iterdir() for word in (task / "children").read_text().split()]


def long(model: Path, **changes: Any) -> Request:
    """A request that takes seconds once the file is open, so that a signal comes before the answer."""
    return request_for(model, suite="standard", **changes)


def to_the_child(signum: int, when: str = "replay") -> Listener:
    """Sends its signal when a step begins."""

    def on_progress(name: str, done: int, total: int) -> None:
        if name == when:
            for pid in children():
                os.kill(pid, signum)

    return Listener(on_progress=on_progress)


# The same verdict


@pytest.mark.parametrize("suite", [None, "replay"])
def test_the_verdict_is_the_one_of_this_process(suite: str | None, linear: Path) -> None:
    request = request_for(linear, suite=suite, min_robust_accuracy=0.5, require_eps="0.02")
    told: list[str] = []
    verdict = verify_isolated(request, listener=Listener(on_progress=lambda name, *_: told.append(name)))
    assert verdict.answer == "holds"
    assert verdict == here(request)
    assert verdict.to_json() == here(request).to_json()
    assert told[0] == "replay"
    assert children() == []


def test_a_seed_that_was_not_given_is_in_the_verdict(linear: Path) -> None:
    request = Request(linear, suite="replay", threads=1)
    verdict = verify_isolated(request)
    assert verdict.seed == request.seed
    assert str(request.seed) in verdict.command


def test_broken_images_come_back_to_the_bit(linear: Path, tmp_path: Path) -> None:
    path = copy(linear, tmp_path)
    reseal(path, onnx.ModelProto.FromString(path.read_bytes()), eps="0.2")
    request = request_for(path)
    verdict, expected = verify_isolated(request), here(request)
    assert verdict.answer == "violated"
    assert verdict == expected
    assert len(verdict.failures) == verdict.broken > 0
    for found, broken in zip(verdict.failures, expected.failures, strict=True):
        assert vars(found).keys() == vars(broken).keys()
        for name, value in vars(broken).items():
            np.testing.assert_array_equal(getattr(found, name), value)
            assert type(getattr(found, name)) is type(value)
    assert verify_isolated(request, with_failures=False).failures == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"model": Path("absent.onnx")},
        {"threads": 0},
        {"samples": 0},
        {"provider": "abacus"},
        {"suite": "quik"},
        {"evidence_file": Path("absent.npz")},
        {"manifest": Path("absent.txt")},
        {"data": DatasetSpec("digits")},
        {"data": DatasetSpec("imagefolder", "absent")},
    ],
)
def test_the_callers_errors_are_the_same(changes: dict[str, Any], linear: Path) -> None:
    request = request_for(linear, **changes)
    with pytest.raises(CompressError) as expected:
        here(request)
    with pytest.raises(type(expected.value)) as caught:
        verify_isolated(request)
    assert (caught.value.message, caught.value.hint) == (expected.value.message, expected.value.hint)
    assert caught.value.exit_code == 2


def test_an_opened_dataset_goes_along(linear: Path, noise: Callable[[int, int], Any]) -> None:
    request = request_for(linear, suite="replay", data=noise(8, 6))
    verdict = verify_isolated(request)
    assert verdict == here(request)
    assert "not the dataset of the claim" in next(check.detail for check in verdict.checks if check.name == "data")


def test_a_memory_limit_that_makes_no_sense(linear: Path) -> None:
    with pytest.raises(UsageError, match="memory limit"):
        verify_isolated(request_for(linear, memory_limit=-1))


# Memory


def bomb(padding: int) -> onnx.ModelProto:
    """A convolution with so much padding that an image takes gigabytes, and a file of a few bytes."""
    shapes = {"kernel": (1, 3, 1, 1), "W": (3, 1), "b": (3,)}
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["wide"], pads=[padding] * 4),
        helper.make_node("GlobalAveragePool", ["wide"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "W", "b"], ["logits"], transB=1),
    ]
    tensor = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", tensor, ["batch", 3, 6, 6])],
        [helper.make_tensor_value_info("logits", tensor, ["batch", 3])],
        [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in shapes.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("padding", [1000, 100_000])
def test_a_file_that_asks_for_far_too_much_memory(padding: int, linear: Path, tmp_path: Path) -> None:
    """3 GB for a batch, which this machine may well have; and 480 GB for an image."""
    path = reseal(copy(linear, tmp_path), bomb(padding))
    verdict = verify_isolated(request_for(path, memory_limit=GB))
    assert (verdict.answer, verdict.exit_code) == ("undecided", 3)
    problem = verdict.first_problem
    assert problem is not None
    assert "memory" in problem.detail
    assert "--memory-limit" in problem.cause
    assert verdict.claim is not None


def test_an_honest_file_needs_little_and_is_told_when_it_has_too_little(linear: Path) -> None:
    assert verify_isolated(request_for(linear, memory_limit=GB // 2)).answer == "holds"
    verdict = verify_isolated(request_for(linear, memory_limit=1000))
    assert verdict.exit_code == 3
    assert verdict.first_problem is not None
    assert "--memory-limit" in verdict.first_problem.cause


def test_without_a_process_of_its_own_a_lack_of_memory_is_named_too(
    linear: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask_for_too_much(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(examination, "replay", ask_for_too_much)
    last = here(request_for(linear)).checks[-1]
    assert (last.status, last.detail) == ("undecided", "out of memory: MemoryError")


@pytest.mark.parametrize(("supported", "limit", "why"), [(True, 0, "none was wanted"), (False, None, "this system")])
def test_no_limit_is_said_and_changes_nothing_else(
    supported: bool, limit: int | None, why: str, linear: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated, "is_supported", lambda: supported)
    request = request_for(linear, suite="replay", memory_limit=limit)
    verdict = verify_isolated(request)
    assert verdict.checks[0].status == "skipped"
    assert why in verdict.checks[0].detail
    assert replace(verdict, checks=verdict.checks[1:]) == here(request)


# Crashes, hangs


@pytest.mark.parametrize("signum", [signal.SIGSEGV, signal.SIGKILL])
def test_a_crash_is_undecided_and_names_the_signal(signum: signal.Signals, linear: Path) -> None:
    verdict = verify_isolated(long(linear), listener=to_the_child(signum))
    assert (verdict.answer, verdict.exit_code) == ("undecided", 3)
    last = verdict.checks[-1]
    assert signum.name in last.detail
    assert "in the step" in last.detail
    assert last.cause
    # What was found before is kept, and the way to repeat it.
    assert [check.status for check in verdict.checks[:2]] == ["passed", "passed"]
    assert verdict.claim is not None
    assert verdict.model_sha256 is not None
    assert "--seed 1" in verdict.command
    assert children() == []


def test_what_asks_the_child_to_stop_is_for_its_parent_to_decide(linear: Path) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM):
        assert verify_isolated(request_for(linear), listener=to_the_child(signum)).answer == "holds"


def test_a_child_that_says_nothing_more_is_ended(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def patience(name: str, done: int, total: int) -> None:
        stop(name, done, total)
        monkeypatch.setattr(isolated, "SILENCE_SECONDS", 0.5)

    stop = to_the_child(signal.SIGSTOP).on_progress
    assert stop is not None
    verdict = verify_isolated(long(linear), listener=Listener(on_progress=patience))
    assert verdict.exit_code == 3
    assert "nothing was heard" in verdict.checks[-1].detail
    assert children() == []


def test_a_child_that_overruns_its_time_is_ended(linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "GRACE_SECONDS", -99.5)
    verdict = verify_isolated(long(linear, time_limit=100), listener=to_the_child(signal.SIGSTOP))
    assert verdict.exit_code == 3
    assert "time limit of 100 s" in verdict.checks[-1].detail
    assert "--time-limit" in verdict.checks[-1].cause
    assert children() == []


def test_whoever_waits_can_stop_it(linear: Path) -> None:
    class Enough(Exception):  # noqa: N818
        pass

    def enough() -> None:
        assert len(children()) == 1
        raise Enough

    with pytest.raises(Enough):
        verify_isolated(request_for(linear), listener=Listener(check_stop=enough))
    assert children() == []


# The command


def command(*words: str, **options: Any) -> subprocess.Popen[str]:
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-m", "cli", "verify", *words], env=env, stdout=pipe, stderr=pipe, text=True, **options
    )


def wait_until(happens: Callable[[], Any]) -> Any:
    for _ in range(600):
        if found := happens():
            return found
        time.sleep(0.05)
    pytest.fail("it never happened")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_orphan_is_left_behind(signum: signal.Signals, linear: Path) -> None:
    with command(str(linear), "--threads", "1", "--suite", "standard") as process:
        (child,) = wait_until(lambda: children(process.pid))
        process.send_signal(signum)
        out, err = process.communicate(timeout=60)
    assert process.returncode == (-signum if signum == signal.SIGKILL else 128 + signum), err
    assert out == ""
    assert "Traceback" not in err
    wait_until(lambda: not Path(f"/proc/{child}/cmdline").exists() or not Path(f"/proc/{child}/cmdline").read_bytes())


def test_nothing_in_the_working_folder_is_run(linear: Path, tmp_path: Path) -> None:
    """A model may come in a folder with files that have the names of modules."""
    for name in ("json", "torch", "numpy", "onnx", "site"):
        (tmp_path / f"{name}.py").write_text("open('I was run', 'w')\nraise SystemExit(7)\n")
    script = f"import sys; sys.path[:] = {[str(ROOT), *sys.path]!r}; from cli.main import run; run()"
    copy(linear, tmp_path)
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, "verify", "model.onnx", "--suite", "replay", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "holds"
    assert not (tmp_path / "I was run").exists()


def test_the_parent_loads_neither_torch_nor_a_runtime(linear: Path) -> None:
    script = (
        "import sys; from cli.main import main; code = main(sys.argv[1:]);"
        "sys.exit(code or str({'torch', 'onnx', 'onnxruntime', 'PIL'} & set(sys.modules) or ''))"
    )
    words = [sys.executable, "-c", script, "verify", str(linear), "--suite", "replay", "--threads", "1"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert "HOLDS" in done.stdout
    assert done.stderr.splitlines()[1:] in ([], [""]), "nothing else was loaded"


def test_what_libraries_print_does_not_come_between() -> None:
    script = (
        "import os; from exporters.isolation.child import _private_stdout; stream = _private_stdout();"
        "print('python'); os.write(1, b'native'); os.system('echo other'); stream.write(b'message\\n'); stream.flush()"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "message\n"
    assert all(word in done.stderr for word in ("python", "native", "other"))


# Messages


def a_verdict() -> dict[str, Any]:
    return messages.verdict_to_json(isolated._nothing_known(Request(Path("m.onnx"), seed=1)))


def a_broken_image() -> BrokenImage:
    natural = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    return BrokenImage(5, 1, 2, natural, natural.astype(np.float32) / np.float32(255), "Square")


def test_a_request_is_what_it_was() -> None:
    path = Path("a") / os.fsdecode(b"\xff.onnx")
    request = Request(
        path,
        data=DatasetSpec("imagefolder", "a b"),
        data_dir=Path("d"),
        download=True,
        min_robust_accuracy=0.1,
        time_limit=1.5,
        signature_file=Path("s"),
        mean=(0.5, 0.25, 1.0),
    )
    with messages.request_as_json(request) as plain:
        line = messages.encode("request", {"request": plain})
    assert messages.request_from_json(messages.decode(line)["request"]) == request


@pytest.mark.parametrize(
    "changes",
    [
        {"answer": "fine"},
        {"reached": []},
        {"reached": ["blessed"]},
        {"checks": [{"name": "gradients"}]},
        {"checks": [{"name": "gradients", "status": "green", "detail": ""}]},
        {"policy": 3},
        {"samples": "many"},
        {"broken": -1},
        {"surprise": 1},
    ],
)
def test_what_is_no_verdict_is_refused(changes: dict[str, Any]) -> None:
    assert messages.verdict_from_json(a_verdict()).answer == "undecided"
    with pytest.raises(MalformedMessageError):
        messages.verdict_from_json(a_verdict() | changes)


@pytest.mark.parametrize(
    "changes", [{"shape": [3, 2, 3]}, {"shape": [-3, -2, 2]}, {"natural": "AAAA"}, {"natural": "%"}, {"label": None}]
)
def test_what_is_no_image_is_refused(changes: dict[str, Any]) -> None:
    plain = messages.broken_to_json(a_broken_image())
    np.testing.assert_array_equal(messages.broken_from_json(plain).adversarial, a_broken_image().adversarial)
    with pytest.raises(MalformedMessageError):
        messages.broken_from_json(plain | changes)


class Says:
    """A child that says what it is told to, and dies."""

    printed = ""

    def __init__(self, *lines: bytes, printed: str = "") -> None:
        self.lines, self.printed = [*lines], printed

    def receive(self, timeout: float) -> Any:
        return messages.decode(self.lines.pop(0)) if self.lines else None

    def ending(self) -> str:
        return "was ended by SIGABRT"


def outcome(child: Any) -> Verdict:
    request = Request(Path("m.onnx"), seed=1)
    return isolated._Conversation(request, child, Listener(), GB).verdict()


@pytest.mark.parametrize(
    "line",
    [
        *(b"Segmentation fault\n", b"[1]\n", b'{"kind": 3}\n', b"{" * 5000, b'{"kind": "verdict"}\n'),
        *(b'{"kind": "error", "name": "Exception"}\n', b'{"kind": "step", "step": 1}\n', b'{"kind": "crash"}\n'),
        messages.encode("verdict", {"verdict": {}}),
    ],
)
def test_nonsense_is_undecided(line: bytes) -> None:
    verdict = outcome(Says(line))
    assert verdict.exit_code == 3
    assert "cannot be understood" in verdict.checks[-1].detail


def test_a_verdict_has_the_seed_that_was_asked_for() -> None:
    plain = a_verdict() | {"seed": 7, "command": "rm -rf /"}
    verdict = outcome(Says(messages.encode("verdict", {"verdict": plain})))
    assert verdict.seed == 1
    assert verdict.command == "compress verify m.onnx --seed 1"


@pytest.mark.parametrize(
    "child",
    [
        Says(printed="terminate called after throwing an instance of 'std::bad_alloc'\n"),
        Says(messages.encode("crash", {"name": "MemoryError", "message": ""})),
        Says(messages.encode("crash", {"name": "RuntimeError", "message": "can't allocate memory"})),
    ],
)
def test_a_crash_for_want_of_memory_says_so(child: Says) -> None:
    last = outcome(child).checks[-1]
    assert "out of memory (limited to 1.0 GB)" in last.detail
    assert "--memory-limit" in last.cause


def test_another_crash_does_not() -> None:
    last = outcome(Says(messages.encode("crash", {"name": "KeyError", "message": "'x'"}))).checks[-1]
    assert "internal error: KeyError" in last.detail
    assert "memory" not in last.detail


@pytest.mark.parametrize("error", [UsageError("a", "b"), UnknownNameError("c"), MissingInputError("d", "e")])
def test_an_error_keeps_its_kind(error: CompressError) -> None:
    found = messages.error_from_json(messages.error_to_json(error))
    assert (type(found), found.message, found.hint) == (type(error), error.message, error.hint)
