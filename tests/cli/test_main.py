"""The command line as a user meets it: a real subprocess, its exit codes, its streams."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.command_table import COMMANDS, load_command
from cli.main import main


def compress(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli", *arguments]
    root = str(Path(__file__).parents[2])
    env = os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=cwd, env=env)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_and_version_load_no_heavy_library(arguments: list[str]) -> None:
    code = (
        "import sys, cli.main; status = cli.main.main(sys.argv[1:]);"
        "heavy = {'torch', 'numpy', 'onnxruntime', 'onnx', 'torchvision', 'sklearn'} & set(sys.modules);"
        "sys.exit(status or (f'loaded {heavy}' if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert done.stderr == ""


def test_list_needs_no_torch_either_and_speaks_json() -> None:
    done = compress("list", "--json")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["schema"] == "compress.list/1"
    names = {item["name"] for item in value["items"]}
    assert {"rslad", "sat", "natural", "mobilenetv2", "cifar10", "digits", "fgsm", "paper@1"} <= names
    assert all(item["summary"] for item in value["items"])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["distill"], 2, "Missing option '--teacher'"),
        (["distil"], 2, "No such command 'distil'"),
        (["list", "method"], 2, "there is no kind of thing to list 'method'"),
        (["distill", "--teacher", "absent.pt"], 2, "absent.pt"),
        (["distill", "--teacher", "."], 2, "folder"),
        (["train", "--model", "mobilenetv2", "--eps", "8/0"], 2, "eps '8/0' is not a number"),
        (["train", "--model", "mobilenet", "--data", "digits"], 2, "mobilenet"),
        (["train", "--model", "resnet18", "--method", "rslad", "--data", "digits"], 2, "needs a teacher"),
        (["train", "--method", "igdm", "--data-dir", "nowhere"], 2, "needs a teacher"),
        (["train", "--method", "sat,trades", "--data", "digits"], 2, "is a list"),
        (["train", "--model", "resnet18", "--data", "cifar10"], 2, "--download"),
        (["train", "--model", "resnet18", "--data", "imagefolder:nowhere"], 2, "nowhere"),
        (["train", "--model", "resnet18", "--data", "digits", "--device", "cuda:9"], 2, "cuda:9 is not there"),
        (["train", "--model", "resnet18", "--data", "digits", "--device", "tpu"], 2, "'tpu' is not known"),
        (["train", "--model", "resnet18", "--data", "digits", "--suite", "strongest"], 2, "no suite 'strongest'"),
        (["train", "--data", "digits", "--recipe", "rslat-cifar10"], 2, "there is no recipe 'rslat-cifar10'"),
        (["train", "--data", "digits", "--recipe", "absent.toml"], 2, "absent.toml is not a file"),
        (["train", "--data", "digits", "--eval-samples", "0"], 2, "--eval-samples"),
        (["train", "--data", "digits", "--eps", "1e-999999999"], 2, "is not a number"),
        (["attack", "absent.onnx"], 2, "absent.onnx"),
        (["attack", "absent.onnx", "--model", "resnet18"], 2, "says nothing about an ONNX file"),
        (["attack", "absent.pt", "--suite", "strongest"], 2, "there is no suite 'strongest'"),
        (["verify", "absent.onnx"], 2, "absent.onnx"),
        (["verify", "absent.onnx", "--min-robust-accuracy", "45"], 2, "not a fraction"),
        (["verify", "absent.onnx", "--min-samples", "0"], 2, "--min-samples"),
        (["verify", "absent.onnx", "--norm", "L2"], 2, "Add --eps"),
        (["manifest", "digits", "--output", "."], 2, "is a folder"),
        (["inspect", "absent.pt"], 2, "absent.pt"),
        (["export", "absent.pt"], 2, "absent.pt"),
    ],
)
def test_wrong_usage_is_a_sentence_and_exit_2(
    arguments: list[str], code: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert says in err
    assert out == ""
    assert "Traceback" not in err
    assert "\x1b" not in err, "no ANSI codes away from a terminal"
    assert list(tmp_path.iterdir()) == [], "nothing half-written"


def test_wrong_usage_names_the_help_of_its_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words, command in ((["verify"], "compress verify"), (["export", "a", "--nonsense"], "compress export")):
        assert main(words) == 2
        assert f"See `{command} --help`." in capsys.readouterr().err
    assert main(["nonsense"]) == 2
    assert "See `compress --help`." in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says(name: str) -> None:
    help_text = " ".join(load_command(name).help.split("\n\n")[0].split())
    assert COMMANDS[name].summary == help_text


def test_help_names_every_command_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys, cli.main; cli.main.main(['--help']);"
        "from cli.command_table import COMMANDS;"
        "loaded = {f'cli.commands.{name}' for name in COMMANDS} & set(sys.modules);"
        "sys.exit(f'loaded {loaded}' if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    assert all(f"{name} {listed.summary}" in shown for name, listed in COMMANDS.items())
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_a_switch_is_shown_to_take_nothing(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([command, "--help"])
    shown = capsys.readouterr().out
    assert "--debug" in shown
    assert "bool" not in shown


def test_a_subprocess_says_the_same(tmp_path: Path) -> None:
    done = compress("train", "--model", "mobilenetv2", "--eps", "8/0", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    first, hint = done.stderr.splitlines()
    assert first == "error: eps '8/0' is not a number."
    assert "8/255" in hint


def test_an_error_under_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "absent.onnx", "--json"]) == 2
    value = json.loads(capsys.readouterr().out)
    assert value["exit_code"] == 2
    assert value["error"]["code"] == "missing-input"
    assert "absent.onnx" in value["error"]["message"]
    assert main(["verify", "--json", "--nonsense"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage"


def test_random_bytes_are_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "teacher.pt").write_bytes(os.urandom(5000))
    (tmp_path / "model.onnx").write_bytes(os.urandom(5000))
    monkeypatch.chdir(tmp_path)
    assert main(["distill", "--teacher", "teacher.pt", "--data", "digits"]) == 2
    assert "teacher.pt" in capsys.readouterr().err
    assert main(["verify", "model.onnx", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["verdict"] == "undecided"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("absent", "code", "says"),
    [
        ("safetensors", 2, "error: this command needs safetensors, which is not installed."),
        ("compressor.checkpoint", 3, "internal error"),
    ],
)
def test_a_command_that_lacks_a_package_names_it(absent: str, code: int, says: str, tmp_path: Path) -> None:
    (tmp_path / "student.safetensors").write_bytes(b"anything")
    script = f"import sys; sys.modules[{absent!r}] = None; import cli.main; sys.exit(cli.main.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script, "export", str(tmp_path / "student.safetensors")],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == code, done.stderr
    assert says in done.stderr


def test_doctor_reports_what_is_here() -> None:
    done = compress("doctor", "--json")
    value = json.loads(done.stdout)
    found = {finding["name"]: finding["status"] for finding in value["findings"]}
    assert found["torch"] == "ok"
    assert found["onnxruntime"] in ("ok", "problem")
    assert done.returncode == (0 if value["healthy"] else 1)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_resume_goes_on(signum: int, code: int, tmp_path: Path) -> None:
    words = ["train", "--model", "mobilenetv2-0.25", "--method", "natural", "--data", "digits", "--epochs", "2"]
    words += ["--train-samples", "320", "--eval-samples", "10", "--suite", "quick", "--eps", "0.1", "--threads", "1"]
    command = [sys.executable, "-m", "cli", *words, "--run", "run", "--resume"]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    # Reading up to the training phase makes sure that the handler is in place and there is something to save.
    for line in process.stderr:
        if line.startswith("Training"):
            break
    process.send_signal(signum)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert out == ""
    assert "--resume" in err
    assert "Traceback" not in err
    assert (tmp_path / "run" / "resume.pt").is_file()

    done = compress(*words, "--run", "run", "--resume", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["schema"] == "compress.train/1"
