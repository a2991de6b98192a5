"""``compress cache`` as a user meets it: tables, one JSON object, exit codes, and what is really removed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cli.main import main
from compressor.data.sources._cache import cached_images
from compressor.training.teaching.label_cache import open_label_cache
from compressor.training.teaching.label_file import LabelKey

KEY = LabelKey("wideresnet-16-4", "a" * 64, "none", "relu", "fp32", "digits", "b" * 64, 32, 7, 6, 5)
NAME = "digits-0123456789abcdef0123456789abcdef-16-12.0.npy"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A label cache used now, and decoded pictures used 40 days ago."""
    monkeypatch.setenv("COMPRESS_CACHE_DIR", str(tmp_path))
    cache = open_label_cache(KEY, limit=10**6)
    cache.write(np.arange(7), np.zeros(7, dtype=np.int64), np.ones((7, 5), dtype=np.float16))
    cached_images(NAME, (4, 3, 16, 16), lambda: iter([np.zeros((4, 3, 16, 16), dtype=np.uint8)]))
    labels, decoded = tmp_path / "labels" / KEY.file_name, tmp_path / "decoded" / NAME
    os.utime(decoded, (time.time() - 40 * 86_400,) * 2)
    return labels, decoded


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict]:
    code = main(["cache", *arguments, "--json"])
    value = json.loads(capsys.readouterr().out)
    assert value.get("schema") == "compress.cache/1" or "error" in value
    return code, value


def test_the_list_says_what_is_kept(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    labels, decoded = files
    assert main(["cache"]) == 0
    out, _ = capsys.readouterr()
    for text in ("wideresnet-16-4's answers to digits", "16.7 %", "digits: 4 pictures", labels.name, decoded.name):
        assert text in out
    assert f"2 files, {'8.2 kB' if sum(map(on_disk, files)) == 8192 else ''}" in out


def test_the_list_as_json(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    labels, decoded = files
    code, value = run(capsys)
    assert code == 0
    assert value["action"] == "list"
    assert value["folder"] == str(labels.parents[1])
    assert value["disk_bytes"] == sum(map(on_disk, files))
    first, second = value["items"]
    assert (first["kind"], first["name"], first["filled"]) == ("decoded", decoded.name, None)
    assert (second["kind"], second["name"], second["filled"]) == ("labels", labels.name, 7 / 42)
    assert second["bytes"] == labels.stat().st_size
    assert second["last_used"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(labels.stat().st_mtime))
    assert run(capsys, "list", "--kind", "labels")[1]["items"] == [second]


def test_verify_drops_damage_and_fails_once(files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    labels, _ = files
    assert run(capsys, "verify")[0] == 0
    with labels.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff\xff")
    code, value = run(capsys, "verify")
    assert code == 1
    statuses = {item["kind"]: (item["status"], item["damaged_records"]) for item in value["items"]}
    assert statuses == {"labels": ("damaged", 1), "decoded": ("ok", 0)}
    assert run(capsys, "verify")[0] == 0


def test_verify_finds_pictures_that_are_cut_off(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    _, decoded = files
    os.truncate(decoded, decoded.stat().st_size - 1)
    assert main(["cache", "verify"]) == 1
    assert "Something was damaged." in capsys.readouterr().out
    assert main(["cache", "verify", "--kind", "labels"]) == 0
    assert "All is sound." in capsys.readouterr().out
    assert main(["cache"]) == 0
    assert "cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        (["--all"], {"labels", "decoded"}),
        (["--all", "--kind", "labels"], {"labels"}),
        (["--older-than", "30"], {"decoded"}),
        (["--older-than", "50"], set()),
        (["--older-than", "30", "--kind", "labels"], set()),
        (["--to-size", "1GB"], set()),
        (["--to-size", "0"], {"labels", "decoded"}),
    ],
)
def test_prune_removes_what_was_chosen(
    files: tuple[Path, Path], arguments: list[str], gone: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {path.parent.name: on_disk(path) for path in files}
    for dry in (["--dry-run"], []):
        code, value = run(capsys, "prune", *arguments, *dry)
        assert code == 0
        assert {item["kind"] for item in value["items"]} == gone
        assert value["disk_bytes"] == sum(sizes[kind] for kind in gone)
        kinds = {"labels"} if "--kind" in arguments else set(sizes)
        assert value["left_disk_bytes"] == sum(sizes[kind] for kind in kinds - gone)
        assert value["dry_run"] == bool(dry)
        if dry:
            assert all(path.exists() for path in files)
    assert {path.parent.name for path in files if not path.exists()} == gone


def test_prune_to_a_size_takes_the_least_recently_used(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    labels, decoded = files
    assert main(["cache", "prune", "--to-size", f"{on_disk(labels)}B"]) == 0
    assert labels.exists()
    assert not decoded.exists()
    assert "freed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["prune"], "--older-than DAYS, --to-size SIZE or --all"),
        (["prune", "--kind", "labels"], "--older-than DAYS, --to-size SIZE or --all"),
        (["prune", "--dry-run"], "--older-than DAYS, --to-size SIZE or --all"),
        (["prune", "--all", "--to-size", "1GB"], "Leave out --all"),
        (["prune", "--to-size", "much"], "'much' is not a size"),
        (["prune", "--older-than", "-1"], "--older-than"),
        (["prune", "--all", "--kind", "label"], "no kind of cache 'label'"),
        (["purge"], "Did you mean prune"),
        (["list", "--all"], "`compress cache list` removes nothing"),
        (["verify", "--dry-run"], "`compress cache verify` removes nothing"),
    ],
)
def test_wrong_usage_removes_nothing(
    files: tuple[Path, Path], arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", *arguments]) == 2
    assert says in capsys.readouterr().err
    assert all(path.exists() for path in files)


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["verify"], ["prune", "--all"]])
def test_it_needs_no_torch_and_its_help_no_numpy(files: tuple[Path, Path], arguments: list[str]) -> None:
    code = (
        "import sys, cli.main; status = cli.main.main(sys.argv[1:]);"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'torchvision'} | ({'numpy'} if '--help' in sys.argv else set());"
        "sys.exit(status or ' '.join(heavy & set(sys.modules)) or 0)"
    )
    command = [sys.executable, "-c", code, "cache", *arguments]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=60)
    assert done.returncode == 0, done.stderr


def on_disk(path: Path) -> int:
    return path.stat().st_blocks * 512
