"""The Dockerfile and the CI files against the project that they speak of: what an engine would find too late."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from cli.main import app

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CI_FILES = [".github/workflows/verify.yml", ".gitlab-ci.yml"]


def instructions(keyword: str) -> list[str]:
    """The arguments of an instruction, continued lines joined."""
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    return re.findall(rf"^{keyword} (.*)$", joined, flags=re.MULTILINE)


def scripts(value: Any) -> list[str]:
    """Every text under ``run`` or ``script``."""
    if isinstance(value, list):
        return [text for item in value for text in scripts(item)]
    if not isinstance(value, dict):
        return []
    own = [text for key in ("run", "script") for text in [value.get(key)] if text]
    flat = [text for item in own for text in (item if isinstance(item, list) else [item])]
    return [text for text in flat if isinstance(text, str)] + [t for item in value.values() for t in scripts(item)]


def verify_command(path: str) -> list[str]:
    """The words after ``verify`` in a CI file's command."""
    texts = scripts(yaml.safe_load((ROOT / path).read_text(encoding="utf-8")))
    (words,) = [shlex.split(text.replace("\\\n", " ")) for text in texts if "verify" in shlex.split(text)]
    return words[words.index("verify") + 1 :]


def test_torch_is_asked_for_as_the_project_does() -> None:
    asked = {word for line in instructions("RUN") for word in re.findall(r'"([a-z]+>=[\d.]+)"', line)}
    asked -= {"pip>=25.1"}
    assert {"torch>=2.9", "torchvision>=0.24"} == asked
    assert asked <= set(PROJECT["project"]["dependencies"])
    (runtime,) = re.findall(r'\$\{runtime\}(>=[\d.]+)"', DOCKERFILE)
    assert {f"onnxruntime{runtime}", f"onnxruntime-gpu{runtime}"} == {
        line.partition(";")[0] for line in PROJECT["project"]["dependencies"] if line.startswith("onnxruntime")
    }


def test_every_stage_that_uses_the_index_names_it() -> None:
    """buildah's stages inherit no ARG from the stage that they start from; without it, pip's own index is used."""
    for stage in re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]:
        assert ("${TORCH_INDEX}" in stage) == ("\nARG TORCH_INDEX\n" in stage)


def test_no_rights_and_no_home_are_needed() -> None:
    assert instructions("USER") == ["65532:65532"]
    assert instructions("ENTRYPOINT") == ['["compress"]']
    assert instructions("WORKDIR")[-1] == "/models"
    environment = shlex.split(instructions("ENV")[-1])
    folders = [word.partition("=") for word in environment if word.partition("=")[0].endswith(("HOME", "_DIR", "DIR"))]
    assert {name for name, _, _ in folders} >= {"HOME", "COMPRESS_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "MPLCONFIGDIR"}
    assert all(value.startswith("/tmp") for _, _, value in folders)


def test_what_is_copied_is_let_through_and_nothing_else() -> None:
    allowed = {
        line.removeprefix("!").removesuffix("/**")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
        if line.startswith("!")
    }
    copied = {name for line in instructions("COPY") if "--from" not in line for name in line.split()[:-1]}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    packages = {name.rstrip("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages | {"recipes"} <= copied


@pytest.mark.parametrize("path", CI_FILES)
def test_ci_verifies_with_options_that_exist_and_policies_set(path: str) -> None:
    words = verify_command(path)
    known = {name for option in get_command(app).commands["verify"].params for name in option.opts}
    options = {word for word in words if word.startswith("--")}
    assert options <= known
    assert options >= {"--min-robust-accuracy", "--require-eps", "--require-norm", "--min-samples", "--junit"}
    assert words[words.index("--junit") + 1] == "verify.xml"


def test_ci_runs_the_image_without_a_network_and_as_the_runner() -> None:
    text = (ROOT / CI_FILES[0]).read_text(encoding="utf-8")
    assert 'docker run --rm --network none --user "$(id -u):$(id -g)" -v "$PWD:/models" "$IMAGE"' in text
    job = yaml.safe_load((ROOT / CI_FILES[1]).read_text(encoding="utf-8"))["verify"]
    assert job["image"]["entrypoint"] == [""]  # a runner needs a shell, not `compress`
    assert job["artifacts"]["reports"]["junit"] == "verify.xml"
    assert job["artifacts"]["when"] == "always"


def test_a_release_publishes_only_what_it_tried() -> None:
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8"))
    steps = release["jobs"]["image"]["steps"]
    names = [step.get("name", "") for step in steps]
    assert names[-1] == "publish"
    assert names.index("refuse to replace a published version") < names.index("build") < len(names) - 2
    assert release["jobs"]["image"]["strategy"]["matrix"]["target"] == re.findall(
        r"^FROM runtime AS (\w+)$", DOCKERFILE, re.MULTILINE
    )


@pytest.mark.parametrize("path", [".github/workflows/verify.yml", ".github/workflows/release.yml"])
def test_no_expression_is_pasted_into_a_shell(path: str) -> None:
    """``${{ ... }}`` in a script is how a branch name or an input becomes a command."""
    texts = scripts(yaml.safe_load((ROOT / path).read_text(encoding="utf-8")))
    assert texts
    assert not [text for text in texts if "${{" in text]
    for text in texts:
        subprocess.run(["bash", "-n", "-c", text], check=True)


def test_the_builder_reads_the_version_and_knows_the_targets(tmp_path: Path) -> None:
    """With a stand-in for Docker that prints what it was asked for."""
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\n[ "$1" = info ] || echo "$@"\n', encoding="utf-8")
    docker.chmod(0o755)

    def build(**environment: str) -> subprocess.CompletedProcess[str]:
        path = f"{tmp_path}:/usr/bin:/bin"
        command = ["sh", str(ROOT / "docker" / "build.sh")]
        return subprocess.run(command, env={"PATH": path} | environment, capture_output=True, text=True, check=False)

    done = build(TORCH_INDEX="", BASE="debian", IMAGE="here")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    from compressor.version import __version__

    assert lines[1::2] == [f"here:{__version__}-verify", f"here:{__version__}"]
    assert all("--build-arg TORCH_INDEX= " in line and "--build-arg BASE=debian" in line for line in lines[::2])
    assert "TORCH_INDEX" not in build().stdout
    refused = build(TARGETS="verifier")
    assert refused.returncode == 2
    assert "There is no target verifier" in refused.stderr
