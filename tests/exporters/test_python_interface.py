"""``from exporters import export, inspect, verify``: what goes in, what comes out, and what it costs to import."""

from __future__ import annotations

import inspect as inspection
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from cli.commands.export import ExportOptions
from cli.commands.verify import VerifyOptions
from compressor.checkpoint import save_checkpoint
from compressor.core.contracts import Split
from compressor.core.errors import ClassMismatchError, MissingInputError, UnreadableDataError, UsageError
from compressor.core.reporting import Event
from compressor.core.types import DatasetSpec, ModelSpec
from compressor.models.classifier import build_classifier
from exporters import Artifact, Inspection, Verdict, export, inspect, verify, write_manifest
from exporters.api.arguments import as_eps
from exporters.claim.claim import model_bytes, read_claim, with_claim
from exporters.claim.evidence import evidence_path
from exporters.verification.manifest import read_manifest
from exporters.verification.request import Request
from exporters.writing.onnx import set_metadata

ROOT = Path(__file__).parents[2]
SIDE = 6


class Place:
    """An object that has a path, as a run or an artifact has."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


class Network(nn.Module):
    """Linear, with a scale of its own inside, as a plain module has its normalisation."""

    def __init__(self, weight: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(weight.shape[1], len(weight))
        self.linear.weight.data = torch.tensor(weight, dtype=torch.float32)
        self.linear.bias.data = -0.5 * self.linear.weight.data.sum(1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.linear(self.dropout(x.flatten(1))))


def same(one: Verdict, other: Verdict) -> bool:
    """Whether two verdicts are equal as JSON, where tuples are lists."""
    return json.dumps(one.to_json()) == json.dumps(other.to_json())


@pytest.fixture(scope="module")
def pictures() -> tuple[Any, Any]:
    """Three classes that a linear model tells apart."""
    rng = np.random.default_rng(0)
    patterns, labels = rng.uniform(-1, 1, (3, 3 * SIDE * SIDE)), rng.integers(0, 3, 96)
    x = 0.5 + 0.35 * rng.uniform(0.3, 1, (96, 1)) * patterns[labels]
    return np.rint(255 * x).astype(np.uint8).reshape(-1, 3, SIDE, SIDE), labels


@pytest.fixture(scope="module")
def network(pictures: tuple[Any, Any]) -> Network:
    patterns = np.random.default_rng(0).uniform(-1, 1, (3, 3 * SIDE * SIDE))
    return Network(10 * (patterns - patterns.mean(0))).train()


@pytest.fixture(scope="module")
def exported(network: Network, pictures: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("exported")
    return export(
        network, data=pictures, eps=4 / 255, evidence_samples=48, threads=1, output=str(folder / "model.onnx")
    )


@pytest.fixture(scope="module")
def sealed_pictures(linear: Path) -> tuple[Any, Any]:
    """The test split that the evidence of ``linear`` was drawn from."""
    rng = np.random.default_rng(0)
    patterns = rng.uniform(-1, 1, (3, 3 * SIDE * SIDE))
    labels = rng.integers(0, 3, 200)
    x = 0.5 + 0.35 * rng.uniform(0, 1, (200, 1)) * patterns[labels]
    return np.rint(255 * x.clip(0.1, 0.9)).astype(np.uint8).reshape(-1, 3, SIDE, SIDE), labels


# What it costs


def test_importing_costs_neither_torch_nor_a_runtime() -> None:
    code = (
        "import sys; from exporters import Verdict, export, inspect, verify, write_manifest;"
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'numpy', 'PIL', 'typer', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_is_printed(
    network: Network, pictures: tuple[Any, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    artifact = export(network, data=pictures, evidence_samples=8, threads=1, output=tmp_path / "m.onnx")
    verify(artifact, suite="replay", threads=1)
    verify(artifact, suite="replay", threads=1, isolate=False)
    inspect(artifact)
    assert capfd.readouterr() == ("", "")


# One list of arguments


def test_verify_takes_what_a_request_holds_and_what_the_command_offers() -> None:
    parameters = inspection.signature(verify).parameters
    assert next(iter(parameters)) == "model"
    asked = {one.name: one.default for one in fields(Request)}
    given = {name: one.default for name, one in parameters.items() if name not in ("isolate", "on_progress")}
    assert given.keys() == asked.keys()
    for name in given.keys() - {"model", "seed"}:
        assert given[name] == asked[name], name
    assert asked["seed"] is MISSING
    assert given["seed"] is None
    offered = {one.name: one.default for one in fields(VerifyOptions)}
    assert offered == {name: default for name, default in given.items() if name != "model"}


def test_export_takes_what_the_command_offers() -> None:
    parameters = dict(inspection.signature(export).parameters)
    del parameters["source"], parameters["on_progress"]
    offered = {one.name: one.default for one in fields(ExportOptions)}
    assert parameters.keys() == offered.keys()
    for name in parameters.keys() - {"precision"}:
        assert parameters[name].default == offered[name], name


# Paths


@pytest.mark.parametrize("form", [str, Path, Place, lambda path: Place(path.parent), lambda path: str(path.parent)])
def test_a_path_may_have_any_form(form: Callable[[Path], Any], linear: Path) -> None:
    """A folder stands for its ``model.onnx``, as a run's does."""
    verdict = verify(form(linear), suite="replay", seed=1, threads=1, isolate=False)
    assert verdict.exit_code == 0
    assert str(linear) in verdict.command


def test_all_other_paths_may_be_text_too(linear: Path, tmp_path: Path, sealed_pictures: tuple[Any, Any]) -> None:
    moved = tmp_path / "moved.npz"
    moved.write_bytes(evidence_path(linear).read_bytes())

    class Data:
        name, class_names, image_size = "pictures", ("a", "b", "c"), SIDE

        def has(self, split: str) -> bool:
            return split == "test"

        def load(self, split: str) -> Split:
            return Split(*sealed_pictures)

    manifest = str(tmp_path / "manifest.txt")
    assert write_manifest(Data(), manifest).digest == read_manifest(Path(manifest)).digest
    for isolate in (True, False):
        verdict = verify(
            str(linear),
            evidence_file=str(moved),
            manifest=manifest,
            suite="replay",
            threads=1,
            isolate=isolate,
            require_assurance="dataset-bound",
        )
        assert verdict.exit_code == 0
    with pytest.raises(UsageError, match="exists already"):
        write_manifest(Data(), manifest)


def test_what_is_no_path_is_the_callers_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a path"):
        verify(3)  # type: ignore[arg-type]
    for isolate in (True, False):
        with pytest.raises(MissingInputError):
            verify(str(tmp_path / "absent.onnx"), isolate=isolate)


# Data


def as_floats(images: Any) -> Any:
    return images.astype(np.float32) / np.float32(255)


@pytest.mark.parametrize("form", [lambda x: x, as_floats, torch.from_numpy, lambda x: torch.from_numpy(as_floats(x))])
def test_arrays_and_tensors_are_data(
    form: Callable[[Any], Any], linear: Path, sealed_pictures: tuple[Any, Any]
) -> None:
    """They are the very split that the claim's digest names, so they bind the evidence to it."""
    images, labels = sealed_pictures
    verdict = verify(linear, data=(form(images), torch.from_numpy(labels)), suite="replay", threads=1, isolate=False)
    assert verdict.assurance == "dataset-bound"


def test_arrays_reach_a_process_of_its_own(linear: Path, sealed_pictures: tuple[Any, Any]) -> None:
    images, labels = sealed_pictures
    other = (255 - images, labels)
    for data in (sealed_pictures, other):
        verdicts = [verify(linear, data=data, seed=3, threads=1, isolate=isolate) for isolate in (True, False)]
        assert same(*verdicts)
    assert verdicts[0].answer == "violated", "negatives are classified otherwise than the claim says"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ((np.zeros((2, 3, 6), np.uint8), np.zeros(2, int)), UnreadableDataError),
        ((np.zeros((2, 6, 6, 3), np.uint8), np.zeros(2, int)), UnreadableDataError),
        ((np.zeros((2, 3, 6, 6), np.uint8), np.zeros(3, int)), UnreadableDataError),
        ((np.full((2, 3, 6, 6), 1.5), np.zeros(2, int)), UnreadableDataError),
        ((np.full((2, 3, 6, 6), np.nan), np.zeros(2, int)), UnreadableDataError),
        ((np.zeros((2, 3, 6, 6), np.uint8), np.zeros(2)), UnreadableDataError),
        ((np.zeros((2, 3, 6, 6), np.uint8), np.full(2, -1)), UnreadableDataError),
        ((np.zeros((2, 3, 6, 6), np.uint8), np.full(2, 3)), ClassMismatchError),
        (7, UsageError),
    ],
)
def test_data_that_cannot_be_used(data: Any, error: type[Exception], linear: Path) -> None:
    with pytest.raises(error):
        verify(linear, data=data, threads=1, isolate=False)


def test_labels_that_are_no_class_are_told_from_a_process_of_its_own(linear: Path) -> None:
    with pytest.raises(ClassMismatchError, match="go up to 3"):
        verify(linear, data=(np.zeros((2, 3, 6, 6), np.uint8), np.full(2, 3)), threads=1)


# Verdicts


def test_with_and_without_a_process_of_its_own_the_verdict_is_the_same(linear: Path) -> None:
    events: list[Event] = []
    alone = verify(linear, seed=5, threads=1, min_robust_accuracy=0.3, on_progress=events.append)
    here = verify(linear, seed=5, threads=1, min_robust_accuracy=0.3, isolate=False)
    assert alone.exit_code == 0
    assert same(alone, here)
    assert {event.kind for event in events} == {"progress"}
    assert {"replay", "PGD-margin"} <= {event.text for event in events}


@pytest.mark.parametrize("isolate", [True, False])
def test_what_on_progress_raises_ends_the_verification(isolate: bool, linear: Path) -> None:
    def enough(event: Event) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError):
        verify(linear, threads=1, isolate=isolate, on_progress=enough)


def test_a_memory_limit_needs_a_process_of_its_own(linear: Path) -> None:
    assert verify(linear, suite="replay", memory_limit="1GB", threads=1).exit_code == 0
    with pytest.raises(UsageError, match="process of its own"):
        verify(linear, memory_limit="1GB", isolate=False)


def test_a_seed_that_was_not_given_is_fresh_and_told(linear: Path) -> None:
    seeds = {verify(linear, suite="replay", threads=1, isolate=False).seed for _ in range(2)}
    assert len(seeds) == 2


def test_names_from_files_are_escaped_in_notebooks(linear: Path, tmp_path: Path) -> None:
    model = onnx.ModelProto.FromString(linear.read_bytes())
    del model.metadata_props[:]
    set_metadata(model, "class_names", json.dumps(["<script>alert(1)</script>", "b", "c"]))
    named = tmp_path / "<b>model.onnx"
    named.write_bytes(model_bytes(model))
    model.graph.node[0].op_type = "<script>"
    unknown = tmp_path / "unknown.onnx"
    unknown.write_bytes(model_bytes(model))
    verdict = verify(unknown, isolate=False)
    assert verdict.exit_code == 3
    for shown in (inspect(named)._repr_html_(), verdict._repr_html_()):
        assert "<script>" not in shown
        assert "<b>" not in shown
        assert shown.startswith("<table>")


def test_a_verdict_shows_itself(linear: Path) -> None:
    shown = verify(linear, suite="replay", threads=1, isolate=False, min_samples=8)._repr_html_()
    for said in ("HOLDS", "digests", "policy min-samples", "robust accuracy"):
        assert said in shown


# Export


def test_a_module_in_memory_is_exported_and_verified(
    network: Network, pictures: tuple[Any, Any], exported: Artifact
) -> None:
    claim = exported.claim
    assert claim is not None
    assert (claim.eps, claim.norm, claim.samples) == ("4/255", "Linf", 48)
    assert claim.robust > 10
    assert (claim.recipe, claim.teacher, claim.student) == (None, None, None)
    assert claim.preprocessing["normalization"] == "inside the model"
    assert claim == read_claim(onnx.ModelProto.FromString(exported.path.read_bytes()))
    assert exported.evidence is not None
    assert exported.evidence.is_file()
    for isolate in (True, False):
        verdict = verify(exported, data=pictures, threads=1, seed=1, isolate=isolate)
        assert (verdict.answer, verdict.assurance) == ("holds", "dataset-bound")
    assert network.training, "the module is left as it was"


def test_an_artifact_describes_itself(exported: Artifact) -> None:
    described = exported.to_json()
    assert described["path"] == os.fspath(exported) == str(exported.path)
    assert (described["evidence"], described["verdict"]) == ("images", None)
    assert described["robust_accuracy"] == pytest.approx(exported.claim.robust / 48)  # type: ignore[union-attr]
    assert "4/255" in exported._repr_html_()
    assert len(repr(exported)) < 1000, "it holds files, and does not print them"


def test_equal_arguments_give_equal_files(
    network: Network, pictures: tuple[Any, Any], exported: Artifact, tmp_path: Path
) -> None:
    again = export(
        network.eval(), data=pictures, eps="4/255", evidence_samples=48, threads=1, output=tmp_path / "model.onnx"
    )
    network.train()
    assert again.path.read_bytes() == exported.path.read_bytes()
    assert evidence_path(again.path).read_bytes() == evidence_path(exported.path).read_bytes()


def test_several_precisions_are_several_artifacts(network: Network, pictures: tuple[Any, Any], tmp_path: Path) -> None:
    artifacts = export(
        network, precision=("fp32",), data=pictures, evidence="none", threads=1, output=tmp_path / "files"
    )
    assert [artifact.path.name for artifact in artifacts] == ["model.onnx"]
    (artifact,) = artifacts
    assert (artifact.claim, artifact.evidence, artifact.to_json()["evidence"]) == (None, None, "none")
    assert inspect(artifact).claim is None
    with pytest.raises(UnreadableDataError, match="train"):
        export(network, precision=["int8"], data=pictures, threads=1, output=tmp_path / "files")
    both: Any = {"train": pictures, "test": pictures}
    (eight,) = export(network, precision=["int8"], data=both, evidence="none", threads=1, output=tmp_path / "files")
    assert eight.converted.description["name"] == "int8"


def test_a_checkpoint_and_a_classifier_in_memory_give_one_network(tmp_path: Path) -> None:
    classifier = build_classifier(ModelSpec("wideresnet-10-1", 10, 8), seed=1).eval()
    folder = tmp_path / "run"
    folder.mkdir()
    save_checkpoint(folder / "best.safetensors", classifier, {"dataset": {"name": "digits"}})
    options: dict[str, Any] = {"evidence": "none", "threads": 1}
    by_file = export(str(folder), **options)
    assert by_file.path == folder / "model.onnx"
    in_memory = export(classifier, data="digits", output=tmp_path / "memory.onnx", **options)
    assert in_memory.path.read_bytes() == by_file.path.read_bytes()
    assert inspect(folder).model == "wideresnet-10-1"


def test_what_an_export_needs_is_said(network: Network, pictures: tuple[Any, Any], tmp_path: Path) -> None:
    place = tmp_path / "m.onnx"
    for options, said in (
        ({"data": pictures}, "output"),
        ({"output": place, "image_size": SIDE}, "data"),
        ({"output": place, "data": pictures, "precision": "fp8"}, "fp32"),
        ({"output": place, "data": pictures, "evidence": "some"}, "digests"),
        ({"output": place, "data": DatasetSpec("digits"), "image_size": 8}, "image_size"),
    ):
        with pytest.raises(UsageError) as caught:
            export(network, threads=1, **options)  # type: ignore[call-overload]
        assert said in caught.value.message + caught.value.hint
    place.write_bytes(b"")
    with pytest.raises(UsageError, match="exists already"):
        export(network, data=pictures, output=place)
    images, labels = pictures
    with pytest.raises(ClassMismatchError):
        export(network, data=(images, labels + 1), output=tmp_path / "n.onnx")


# Inspect


def test_a_file_says_what_it_is(linear: Path) -> None:
    found = inspect(str(linear))
    assert isinstance(found, Inspection)
    assert (found.kind, found.classes, found.image_size) == ("onnx", 3, SIDE)
    assert found.claim is not None
    plain = found.to_json()
    assert list(plain)[:3] == ["kind", "family", "model"]
    assert json.loads(json.dumps(plain))["claim"]["robust"] == found.claim["robust"]
    assert os.fspath(found) == str(linear)


def test_a_recipe_may_name_a_model_that_is_not_known_here(linear: Path, tmp_path: Path) -> None:
    model = onnx.ModelProto.FromString(linear.read_bytes())
    claim = read_claim(model)
    assert claim is not None
    for name, family in (("nonsense-3", None), ("module:Small-0123", "module"), ("mobilenetv2-0.25", "mobilenetv2")):
        named = replace(claim, recipe={"model": name}).sealed()
        path = tmp_path / "model.onnx"
        path.write_bytes(model_bytes(with_claim(model, named)))
        assert (inspect(path).model, inspect(path).family) == (name, family)


def test_a_checkpoint_of_a_module_is_described_without_its_code(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    network = build_classifier(ModelSpec("wideresnet-10-1", 3, 8), seed=1)
    network.spec = ModelSpec("module:Small-0123456789ab", 3, 8)
    save_checkpoint(path, network, {})
    found = inspect(path)
    assert (found.family, found.classes, found.parameters) == ("module", 3, None)
    assert "module in memory" in found.notes[0]


@pytest.mark.parametrize("given", [8 / 255, 0.1, 0.03, 1 / 255, 0.5, "8/255", 1.25, None])
def test_a_radius_may_be_a_number(given: Any) -> None:
    text = as_eps(given)
    if given is None or isinstance(given, str):
        assert text == given
    else:
        assert text is not None
        numerator, _, denominator = text.partition("/")
        assert float(numerator) / float(denominator or 1) == pytest.approx(given, abs=1e-9)
    assert as_eps(8 / 255) == "8/255"
