"""The verifier against honest files, damaged files and liars."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

import exporters
from compressor.core.errors import (
    ClassMismatchError,
    Interrupted,
    MissingInputError,
    UnknownNameError,
    UnreadableManifestError,
    UsageError,
)
from compressor.core.reporting import Event
from compressor.core.types import Threat
from compressor.data.datasets import draw
from compressor.system.files import sha256_bytes
from exporters import verification
from exporters.artifact.sealing import ExportSettings, Sealed, seal
from exporters.claim.claim import model_bytes, model_digest, read_claim, with_claim
from exporters.claim.evidence import DigestEvidence, Evidence, evidence_path, parse_evidence
from exporters.claim.signing import sign_files, signature_path
from exporters.file_attacks.target import lead, open_file_target
from exporters.model_file.runtime import open_session
from exporters.verification import opening
from exporters.verification.decision import is_refuted, robust_estimate
from exporters.verification.failures import write_failures
from exporters.verification.manifest import make_manifest, read_manifest
from exporters.verification.policies import Policies
from exporters.verification.verdict import Verdict
from exporters.writing.onnx import export_onnx
from tests.support.patterns import SIDE, TestImages, draw_patterns, train_on_patterns

verify = partial(exporters.verify, isolate=False)

THREAT = Threat("Linf", "0.06")


class Blobs(TestImages):
    """Three classes of patterns, from faint to strong; ``ease`` makes all of them strong."""

    def __init__(self, name: str = "blobs", seed: int = 0, total: int = 400, ease: float = 0.0) -> None:
        super().__init__(name, draw_patterns(seed, total, ease))


def train(eps: float) -> nn.Module:
    """A small network with a ReLU6, trained on attacked patterns."""
    return train_on_patterns(draw_patterns(99, 640), 60, Threat("Linf", str(eps)) if eps else None, eps / 2)


@dataclass(frozen=True)
class Files:
    """A model and its evidence on disk, and ways to lie with them that leave every digest right."""

    path: Path

    @property
    def evidence(self) -> Evidence:
        evidence = parse_evidence(evidence_path(self.path).read_bytes())
        assert isinstance(evidence, Evidence)
        return evidence

    @property
    def model(self) -> onnx.ModelProto:
        return onnx.ModelProto.FromString(self.path.read_bytes())

    def rewrite(
        self, evidence: Evidence | None = None, model: onnx.ModelProto | None = None, **claim_changes: Any
    ) -> Files:
        evidence = self.evidence if evidence is None else evidence
        model = self.model if model is None else model
        claim = read_claim(self.model)
        assert claim is not None
        data = evidence.to_bytes()
        counts = {
            "samples": len(evidence),
            "clean_correct": int(evidence.clean.sum()),
            "robust": int(evidence.robust.sum()),
        }
        digests = {"evidence": sha256_bytes(data), "model": model_digest(model)}
        claim = replace(claim, **counts | digests | claim_changes).sealed()
        evidence_path(self.path).write_bytes(data)
        self.path.write_bytes(model_bytes(with_claim(model, claim)))
        return self


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return train(THREAT.radius)


@pytest.fixture(scope="module")
def sealed(network: nn.Module) -> Sealed:
    return seal(export_onnx(network, SIDE), Blobs(), THREAT, ExportSettings(samples=128, threads=1))


@pytest.fixture
def files(sealed: Sealed, tmp_path: Path) -> Files:
    sealed.write(tmp_path / "model.onnx")
    return Files(tmp_path / "model.onnx")


def check(files: Files, **options: Any) -> Verdict:
    return verify(files.path, threads=1, **{"seed": 7} | options)


def status(verdict: Verdict) -> dict[str, str]:
    return {check.name: check.status for check in verdict.checks}


def take(evidence: Evidence, n: int) -> Evidence:
    """The first n images, with what belongs to them."""
    byte, real = evidence.adversarial_u8_index < n, evidence.adversarial_f32_index < n
    return Evidence(
        *(getattr(evidence, name)[:n] for name in ("images", "labels", "clean", "robust")),
        *(evidence.adversarial_u8[byte], evidence.adversarial_u8_index[byte]),
        *(evidence.adversarial_f32[real], evidence.adversarial_f32_index[real]),
    )


def only_robust(evidence: Evidence) -> Evidence:
    """The exporter's own choice, honestly attacked: consistent in itself, and not what the digest draws."""
    order = np.flatnonzero(evidence.robust)
    return Evidence(
        *(getattr(evidence, name)[order] for name in ("images", "labels", "clean", "robust")),
        *(evidence.adversarial_u8[:0], evidence.adversarial_u8_index[:0]),
        *(evidence.adversarial_f32[:0], evidence.adversarial_f32_index[:0]),
    )


def call_robust(evidence: Evidence, n: int) -> Evidence:
    """Call n of the fallen images robust, and leave out the proofs that they are not."""
    lies = np.flatnonzero(evidence.clean & ~evidence.robust)[:n]
    assert len(lies) == n
    robust = evidence.robust.copy()
    robust[lies] = True
    byte = ~np.isin(evidence.adversarial_u8_index, lies)
    real = ~np.isin(evidence.adversarial_f32_index, lies)
    return replace(
        evidence,
        robust=robust,
        adversarial_u8=evidence.adversarial_u8[byte],
        adversarial_u8_index=evidence.adversarial_u8_index[byte],
        adversarial_f32=evidence.adversarial_f32[real],
        adversarial_f32_index=evidence.adversarial_f32_index[real],
    )


# Honest files


def test_an_honest_claim_holds(files: Files, sealed: Sealed) -> None:
    verdict = check(files)
    assert (verdict.answer, verdict.exit_code) == ("holds", 0)
    assert 0.2 < sealed.claim.robust / 128 < 0.9  # or the tests below show nothing
    assert verdict.attacked == sealed.claim.robust
    assert verdict.assurance == "self-consistent"
    assert set(status(verdict).values()) == {"passed", "skipped"}
    assert "PGD-margin through Clip" in verdict.attacks
    assert "nothing else was required" in verdict.summary


@pytest.mark.parametrize("seed", range(5))
def test_an_honest_claim_holds_under_any_seed(files: Files, seed: int) -> None:
    assert check(files, seed=seed).exit_code == 0


def test_one_seed_gives_one_verdict(files: Files) -> None:
    first, second = check(files, seed=3).to_json(), check(files, seed=3).to_json()
    assert first == second
    assert verify(files.path, threads=1, suite="replay").seed != verify(files.path, threads=1, suite="replay").seed


def test_json_is_plain_and_complete(files: Files) -> None:
    value = json.loads(json.dumps(check(files).to_json(), allow_nan=False))
    expected = {"schema", "verdict", "assurance", "samples", "clean_accuracy", "robust_accuracy", "broken", "attacked"}
    expected |= {"attacks", "alarms", "checks", "policy", "claim", "seed", "exit_code"}
    assert expected <= set(value)
    assert (value["schema"], value["exit_code"], value["failure"]) == ("compress.verify/1", 0, None)


def test_a_part_of_the_images_can_be_attacked(files: Files) -> None:
    verdict = check(files, samples=10)
    assert (verdict.attacked, verdict.exit_code) == (10, 0)


def test_what_the_export_confesses_is_believed(files: Files) -> None:
    files.rewrite(alarms=("half-range", "zero-gradients"))
    verdict = check(files)
    assert (verdict.answer, verdict.exit_code) == ("undecided", 3)
    assert verdict.first_problem is not None
    assert verdict.first_problem.name == "sealed alarms"
    assert verdict.first_problem.detail.endswith("raised alarms on its attacks: half-range, zero-gradients")
    assert verdict.alarms == (), "the verifier's own attacks saw nothing wrong"
    assert check(files, suite="replay").exit_code == 3
    # A violation needs no good attack: what is proven stays proven.
    files.rewrite(call_robust(files.evidence, 13), alarms=("half-range",))
    assert check(files).exit_code == 1


def test_replay_says_that_it_attacked_nothing(files: Files) -> None:
    verdict = check(files, suite="replay")
    assert verdict.exit_code == 0
    assert verdict.attacked == 0
    assert status(verdict)["attacks"] == "skipped"
    assert "no fresh attack" in verdict.summary
    required = check(files, suite="replay", min_robust_accuracy=0.0)
    assert required.exit_code == 3


def test_another_suite_comes_after_the_verifiers_own(files: Files) -> None:
    own = check(files).attacks
    verdict = check(files, suite="quick")
    assert (verdict.suite, verdict.exit_code) == ("verify@1+quick@1", 0)
    assert list(verdict.attacks) == [*own, "quick@1 FGSM", "quick@1 PGD-10"]


def test_another_suite_silences_no_alarm(files: Files) -> None:
    def saturate(logits: str) -> list[onnx.NodeProto]:
        return [helper.make_node("Mul", [logits, "steep"], ["far"]), helper.make_node("Sigmoid", ["far"], ["tail"])]

    files.rewrite(call_robust(files.evidence, 0), model=with_tail(files, saturate, steep=np.float32(1e5)))
    assert check(files, suite="quick").exit_code == 3


# One flipped byte


def sweep(length: int, count: int) -> list[int]:
    return sorted({position * (length - 1) // (count - 1) for position in range(count)})


def test_one_flipped_byte_of_the_model_is_never_accepted(files: Files) -> None:
    data = files.path.read_bytes()
    codes = set()
    for turn, position in enumerate(sweep(len(data), 300)):
        changed = bytearray(data)
        changed[position] ^= 1 << turn % 8
        files.path.write_bytes(bytes(changed))
        codes.add(check(files).exit_code)
    assert codes == {1, 3}


def test_one_flipped_byte_of_the_weights_is_a_violation(files: Files) -> None:
    data = files.path.read_bytes()
    weights = max((tensor.raw_data for tensor in files.model.graph.initializer), key=len)
    for offset in sweep(len(weights), 20):
        changed = bytearray(data)
        changed[data.index(weights) + offset] ^= 1
        files.path.write_bytes(bytes(changed))
        verdict = check(files)
        assert (verdict.exit_code, status(verdict)["digests"]) == (1, "failed")


def test_one_flipped_byte_of_the_claim_is_never_accepted(files: Files) -> None:
    data = files.path.read_bytes()
    start = data.index(b"compress.claim")
    for position in range(start, len(data), 11):
        changed = bytearray(data)
        changed[position] ^= 1
        files.path.write_bytes(bytes(changed))
        assert check(files).exit_code in (1, 3), position


def test_one_flipped_byte_of_the_evidence_is_a_violation(files: Files) -> None:
    path = evidence_path(files.path)
    data = path.read_bytes()
    for position in sweep(len(data), 60):
        changed = bytearray(data)
        changed[position] ^= 4
        path.write_bytes(bytes(changed))
        assert check(files).exit_code == 1, position


def test_the_same_meaning_in_other_bytes_is_undecided(files: Files) -> None:
    # Protobuf lets a later field replace an earlier one: the digest of the meaning stays what it was.
    files.path.write_bytes(
        files.path.read_bytes() + onnx.ModelProto(ir_version=files.model.ir_version).SerializeToString()
    )
    verdict = check(files)
    assert (verdict.exit_code, status(verdict)["digests"]) == (3, "undecided")


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_truncated_files_are_never_accepted(files: Files, part: float) -> None:
    whole = files.path.read_bytes()
    files.path.write_bytes(whole[: int(part * len(whole))])
    assert check(files).exit_code == 3
    files.path.write_bytes(whole)
    data = evidence_path(files.path).read_bytes()
    evidence_path(files.path).write_bytes(data[: int(part * len(data))])
    assert check(files).exit_code == 1


# Lies with every digest right


def test_rewriting_honestly_changes_nothing(files: Files) -> None:
    assert check(files.rewrite()).exit_code == 0


def test_ten_points_of_inflation_are_found_by_attack(files: Files) -> None:
    verdict = check(files.rewrite(call_robust(files.evidence, 13)))
    assert (verdict.answer, verdict.exit_code) == ("violated", 1)
    found = status(verdict)
    assert (found["digests"], found["replay"], found["decision"]) == ("passed", "passed", "failed")
    assert verdict.broken >= 12
    problem = verdict.first_problem
    assert problem is not None
    assert problem.name == "decision"
    assert problem.cause
    assert "--seed 7" in verdict.command
    assert {failure.label != failure.predicted for failure in verdict.failures} == {True}
    assert len(verdict.failures) == verdict.broken


def test_broken_images_can_be_looked_at(files: Files, tmp_path: Path) -> None:
    verdict = check(files.rewrite(call_robust(files.evidence, 13)))
    written = write_failures(verdict, tmp_path / "failures")
    assert len(written) == 2 * verdict.broken
    assert sorted(written) == sorted((tmp_path / "failures").iterdir())
    with Image.open(written[0]) as picture:
        np.testing.assert_array_equal(np.asarray(picture).transpose(2, 0, 1), verdict.failures[0].natural)
    with pytest.raises(UsageError):
        write_failures(verdict, files.path)


def test_all_fallen_images_called_robust(files: Files) -> None:
    evidence = files.evidence
    verdict = check(files.rewrite(call_robust(evidence, int((evidence.clean & ~evidence.robust).sum()))), samples=40)
    assert verdict.exit_code == 1


def test_a_claim_of_a_larger_ball_is_found_by_attack(files: Files) -> None:
    # The adversarial images lie in the larger ball as well, so only an attack tells.
    verdict = check(files.rewrite(eps="0.1"))
    assert (verdict.exit_code, status(verdict)["decision"]) == (1, "failed")


def test_a_claim_of_a_smaller_ball_leaves_the_proofs_outside(files: Files) -> None:
    verdict = check(files.rewrite(eps="0.05"))
    assert (verdict.exit_code, status(verdict)["replay"]) == (1, "failed")


def test_proof_outside_the_ball(files: Files) -> None:
    adversarial = files.evidence.adversarial_u8.copy()
    adversarial[0] = 255 - adversarial[0]
    verdict = check(files.rewrite(replace(files.evidence, adversarial_u8=adversarial)))
    assert (verdict.exit_code, status(verdict)["replay"]) == (1, "failed")


def test_proof_that_proves_nothing(files: Files) -> None:
    evidence = files.evidence
    natural = evidence.images[evidence.adversarial_u8_index]
    verdict = check(files.rewrite(replace(evidence, adversarial_u8=natural)))
    assert (verdict.exit_code, status(verdict)["replay"]) == (3, "undecided")


def test_stale_weights(files: Files) -> None:
    other = export_onnx(train(0.0), SIDE)
    verdict = check(files.rewrite(model=other))
    assert verdict.exit_code in (1, 3)
    assert status(verdict)["replay"] == "undecided"
    assert "weights" in next(check.cause for check in verdict.checks if check.name == "replay")


def test_counts_that_the_evidence_does_not_bear_out(files: Files) -> None:
    verdict = check(files.rewrite(robust=int(files.evidence.robust.sum()) + 1))
    assert (verdict.exit_code, status(verdict)["digests"]) == (1, "failed")


@pytest.mark.parametrize("class_names", [("a", "b"), ("a", "b", "c", "d")])
def test_classes_that_the_model_does_not_have(files: Files, class_names: tuple[str, ...]) -> None:
    assert check(files.rewrite(class_names=class_names)).exit_code == 1


def test_labels_out_of_range(files: Files) -> None:
    labels = files.evidence.labels.copy()
    labels[0] = 3
    assert check(files.rewrite(replace(files.evidence, labels=labels))).exit_code == 1


def test_zero_images_are_never_enough(files: Files) -> None:
    verdict = check(files.rewrite(take(files.evidence, 0)))
    assert (verdict.answer, verdict.exit_code, verdict.samples) == ("undecided", 3, 0)
    assert verdict.to_json()["robust_accuracy"] is None


@pytest.mark.parametrize("suite", ["quick@1", "replay", "nonsense@1", "verify@2", ""])
def test_a_claim_does_not_choose_what_is_run(files: Files, suite: str) -> None:
    lie = files.rewrite(call_robust(files.evidence, 13), suite=suite)
    assert check(lie).exit_code == 3
    verdict = check(lie, latest=True)
    assert (verdict.exit_code, verdict.suite) == (1, "verify@1")


# Missing and unreadable


def test_missing_evidence_is_undecided(files: Files) -> None:
    evidence_path(files.path).rename(files.path.with_name("elsewhere.npz"))
    assert check(files).exit_code == 3
    assert check(files, evidence_file=files.path.with_name("elsewhere.npz")).exit_code == 0
    with pytest.raises(MissingInputError):
        check(files, evidence_file=files.path.with_name("nowhere.npz"))


def test_a_missing_model_is_the_callers_mistake(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(MissingInputError):
            verify(path)


def test_a_file_without_a_claim(files: Files, network: nn.Module) -> None:
    files.path.write_bytes(model_bytes(export_onnx(network, SIDE)))
    verdict = check(files)
    assert (verdict.answer, verdict.exit_code, verdict.claim) == ("undecided", 3, None)
    assert "no claim" in verdict.checks[-1].detail


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 1000, b"\x80\x04pickle"])
def test_what_is_no_model_is_undecided(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    assert verify(path).exit_code == 3


def test_options_that_make_no_sense(files: Files) -> None:
    for options in ({"samples": 0}, {"seed": -1}, {"threads": 0}):
        with pytest.raises(UsageError):
            verify(files.path, **options)
    with pytest.raises(UnknownNameError):
        check(files, suite="quik")


def test_an_internal_error_is_undecided(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr(verification.examination, "replay", fail)
    verdict = check(files)
    assert verdict.exit_code == 3
    assert "ZeroDivisionError" in verdict.checks[-1].detail


def test_an_interruption_is_no_finding(files: Files) -> None:
    def stop(event: Event) -> None:
        raise Interrupted(2)

    with pytest.raises(Interrupted):
        check(files, on_progress=stop)


# A time limit


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("exporters.file_attacks.time_limit.monotonic", lambda: self.now)

    def runs_out_at(self, phase: str) -> Callable[[Event], None]:
        def on_progress(event: Event) -> None:
            if event.text == phase and event.done == event.total:
                self.now += 100

        return on_progress


@pytest.mark.parametrize(("phase", "step"), [("replay", "determinism"), ("PGD-margin", "attacks"), ("FGSM", "attacks")])
def test_out_of_time_is_undecided_and_says_where(
    files: Files, monkeypatch: pytest.MonkeyPatch, phase: str, step: str
) -> None:
    stop = Clock(monkeypatch).runs_out_at(phase)
    required = {"min_robust_accuracy": 0.05, "min_clean_accuracy": 0.3}
    verdict = check(files, time_limit=60, on_progress=stop, **required)
    assert (verdict.answer, verdict.exit_code) == ("undecided", 3)
    last = verdict.checks[-1]
    assert (last.name, last.status) == (step, "undecided")
    assert "time limit of 60 s" in last.detail
    assert "--time-limit" in last.cause
    if step == "attacks":
        assert phase in last.detail, "what was done so far"
        assert verdict.attacks, "what was done so far"
    # Attacks that were cut short are no figure to hold a threshold against; the clean accuracy is one.
    assert verdict.to_json()["robust_accuracy"] is None
    assert verdict.to_json()["clean_accuracy"] is not None
    assert [result.status for result in verdict.policy] == ["undecided", "met"]


def test_time_enough_changes_nothing(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    assert check(files, time_limit=60).to_json() == check(files).to_json()


def test_what_was_refuted_in_time_stays_refuted(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.rewrite(call_robust(files.evidence, 13))
    verdict = check(files, time_limit=60, on_progress=Clock(monkeypatch).runs_out_at("PGD-margin"))
    assert (verdict.answer, verdict.exit_code) == ("violated", 1)
    assert status(verdict)["attacks"] == "undecided"
    assert verdict.first_problem is not None
    assert verdict.first_problem.name == "decision"


def test_new_images_are_under_the_limit_too(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    turns = []

    def second_time(event: Event) -> None:
        if event.text == "PGD-margin" and event.done == event.total:
            turns.append(event.text)
            clock.now += 100 * (len(turns) > 1)

    verdict = check(files, time_limit=60, data=Blobs("mine", seed=5), on_progress=second_time)
    assert (verdict.exit_code, verdict.checks[-1].name) == (3, "independent data")
    assert status(verdict)["decision"] == "passed"


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan"), float("inf")])
def test_a_limit_that_makes_no_sense(files: Files, limit: float) -> None:
    with pytest.raises(UsageError, match="time limit"):
        check(files, time_limit=limit)


# What was examined


def test_the_verdict_names_the_bytes_that_were_examined(files: Files) -> None:
    verdict = check(files, suite="replay")
    assert verdict.model_sha256 == sha256_bytes(files.path.read_bytes())
    assert verdict.evidence_sha256 == sha256_bytes(evidence_path(files.path).read_bytes())
    files.path.write_bytes(b"hello")
    assert check(files).model_sha256 is None


def test_the_command_that_repeats_it_has_the_policies(files: Files) -> None:
    required = {"min_robust_accuracy": 0.05, "require_eps": "0.06", "require_norm": "Linf", "min_samples": 8}
    command = check(files, suite="replay", **required).command
    assert command.endswith("--min-robust-accuracy 0.05 --require-eps 0.06 --require-norm Linf --min-samples 8")


# Data that the verifier holds


def test_the_claims_own_data_bind_the_evidence(files: Files) -> None:
    verdict = check(files, data=Blobs(), require_assurance="dataset-bound")
    assert (verdict.exit_code, verdict.assurance) == (0, "dataset-bound")
    without = check(files, require_assurance="dataset-bound")
    assert without.exit_code == 1


def test_chosen_images_are_not_the_draw(files: Files) -> None:
    files.rewrite(only_robust(files.evidence))
    assert check(files).exit_code == 0
    verdict = check(files, data=Blobs())
    assert (verdict.exit_code, status(verdict)["data"]) == (1, "failed")


def test_other_data_of_the_same_kind_confirm(files: Files) -> None:
    verdict = check(files, data=Blobs("mine", seed=5))
    assert (verdict.exit_code, verdict.assurance) == (0, "self-consistent")
    assert status(verdict)["independent data"] == "passed"


def test_a_claim_of_easy_images_is_refuted_by_other_data(network: nn.Module, tmp_path: Path) -> None:
    sealed = seal(export_onnx(network, SIDE), Blobs("easy", ease=0.8), THREAT, ExportSettings(samples=128, threads=1))
    sealed.write(tmp_path / "model.onnx")
    files = Files(tmp_path / "model.onnx")
    assert check(files).exit_code == 0
    verdict = check(files, data=Blobs("mine", seed=5))
    assert (verdict.exit_code, status(verdict)["independent data"]) == (1, "failed")


def test_data_with_other_classes_are_the_callers_mistake(files: Files) -> None:
    data = Blobs()
    for names in (("a", "b"), ("x", "y", "z"), ("b", "a", "c")):
        data.class_names = names
        with pytest.raises(ClassMismatchError):
            check(files, data=data)


def test_few_claimed_images_do_not_make_the_test_by_other_data_weak(files: Files) -> None:
    few = files.rewrite(take(files.evidence, 20))
    verdict = check(few, suite="verify", data=Blobs("mine", seed=5))
    assert "of 256 new images" in verdict.checks[-1].detail
    asked = check(few, suite="verify", samples=30, data=Blobs("mine", seed=5))
    assert "of 30 new images" in asked.checks[-1].detail


# A manifest in place of the data


def write_manifest(folder: Path, data: Blobs) -> Path:
    path = folder / "test.manifest"
    path.write_text(make_manifest(data).to_text())
    return path


def test_a_manifest_binds_as_the_data_do(files: Files, tmp_path: Path) -> None:
    bound = {"require_assurance": "dataset-bound"}
    verdict = check(files, manifest=write_manifest(tmp_path, Blobs()), **bound)
    assert (verdict.exit_code, verdict.assurance) == (0, "dataset-bound")
    assert "--manifest" in verdict.command
    files.rewrite(only_robust(files.evidence))
    verdict = check(files, suite="replay", manifest=write_manifest(tmp_path, Blobs()))
    assert (verdict.exit_code, status(verdict)["data"]) == (1, "failed")


def test_a_manifest_of_other_data_binds_nothing(files: Files, tmp_path: Path) -> None:
    other = write_manifest(tmp_path, Blobs("mine", seed=5))
    verdict = check(files, suite="replay", manifest=other)
    assert (verdict.exit_code, verdict.assurance, status(verdict)["data"]) == (0, "self-consistent", "skipped")
    verdict = check(files, suite="replay", manifest=other, require_assurance="dataset-bound")
    assert verdict.exit_code == 1


def test_a_manifest_binds_the_claims_images_and_other_data_are_tried_all_the_same(files: Files, tmp_path: Path) -> None:
    mine = Blobs("mine", seed=5)
    verdict = check(files, manifest=write_manifest(tmp_path, Blobs()), data=mine)
    assert (verdict.exit_code, verdict.assurance) == (0, "dataset-bound")
    assert status(verdict)["independent data"] == "passed"


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    made = make_manifest(Blobs())
    read = read_manifest(write_manifest(tmp_path, Blobs()))
    assert read.to_text() == made.to_text()
    index = draw(made.digest, total=400, n=5)
    images, labels = read.drawn(5)
    split = Blobs().load("test")
    assert labels.tolist() == split.labels[index].tolist()
    assert bytes(images[0]).hex() == sha256_bytes(np.ascontiguousarray(split.images[index[0]]).tobytes())


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:-1],
        lambda text: text[: len(text) // 2],
        lambda text: text + "\n",
        lambda text: text.replace("manifest/1", "manifest/2"),
        lambda text: text.replace(" 0\n", " 3\n", 1),
        lambda text: text.replace(" 0\n", " 00\n", 1),
        lambda text: "[" * 100_000,
    ],
)
def test_a_damaged_manifest_is_the_callers_mistake(damage: Callable[[str], str], files: Files, tmp_path: Path) -> None:
    path = write_manifest(tmp_path, Blobs())
    path.write_text(damage(path.read_text()))
    with pytest.raises(UnreadableManifestError) as caught:
        check(files, manifest=path)
    assert caught.value.exit_code == 2


# Evidence without images


@pytest.fixture
def bare(network: nn.Module, tmp_path: Path) -> Path:
    sealed = seal(export_onnx(network, SIDE), Blobs(), THREAT, ExportSettings(samples=64, threads=1, with_images=False))
    sealed.write(tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_evidence_without_images_needs_the_data_and_then_holds(bare: Path, tmp_path: Path) -> None:
    assert len(evidence_path(bare).read_bytes()) < 64 * 64 + 2000
    verdict = verify(bare, seed=3, threads=1)
    assert (verdict.exit_code, status(verdict)["data"]) == (3, "undecided")
    measured = verdict.to_json()
    assert [measured[name] for name in ("clean_accuracy", "robust_accuracy", "robust_interval")] == [None] * 3
    verdict = verify(bare, seed=3, threads=1, manifest=write_manifest(tmp_path, Blobs()))
    assert (verdict.exit_code, verdict.assurance) == (3, "dataset-bound")
    verdict = verify(bare, seed=3, threads=1, data=Blobs())
    assert (verdict.exit_code, verdict.assurance) == (0, "dataset-bound")
    verdict = verify(bare, seed=3, threads=1, data=Blobs("mine", seed=5))
    assert verdict.exit_code == 3


def test_digests_of_other_images_are_a_violation(bare: Path) -> None:
    evidence = parse_evidence(evidence_path(bare).read_bytes())
    assert isinstance(evidence, DigestEvidence)
    swapped = replace(evidence, image_sha256=evidence.image_sha256[::-1].copy())
    data, model = swapped.to_bytes(), onnx.ModelProto.FromString(bare.read_bytes())
    claim = read_claim(model)
    assert claim is not None
    evidence_path(bare).write_bytes(data)
    bare.write_bytes(model_bytes(with_claim(model, replace(claim, evidence=sha256_bytes(data)).sealed())))
    verdict = verify(bare, suite="replay", data=Blobs())
    assert (verdict.exit_code, status(verdict)["data"]) == (1, "failed")


# Signatures


@pytest.fixture
def public_key(files: Files, tmp_path: Path) -> Path:
    """The files are signed; here is the key that tells."""
    key = ec.generate_private_key(ec.SECP256R1())
    digests = {files.path.name: sha256_bytes(files.path.read_bytes())}
    signature_path(files.path).write_bytes(sign_files(digests, "model", key))
    return write_public(tmp_path, key)


def write_public(folder: Path, key: ec.EllipticCurvePrivateKey) -> Path:
    path = folder / f"{key.private_numbers().private_value % 997}.pub"
    path.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return path


def test_a_signed_file_says_so(files: Files, public_key: Path) -> None:
    signed = {"require_assurance": "signed"}
    verdict = check(files, suite="replay", public_key=public_key, **signed)
    assert (verdict.exit_code, verdict.assurance) == (0, "signed")
    verdict = check(files, suite="replay", public_key=public_key, data=Blobs(), **signed)
    assert verdict.reached == ("self-consistent", "dataset-bound", "signed")
    # A signature is no draw: it does not say who chose the images.
    bound = check(files, suite="replay", public_key=public_key, require_assurance="dataset-bound")
    assert bound.exit_code == 1


def test_a_regenerated_pair_is_not_the_signed_one(files: Files, public_key: Path) -> None:
    files.rewrite(take(files.evidence, 60))
    signed = {"require_assurance": "signed"}
    assert check(files, suite="replay").exit_code == 0, "the pair is consistent in itself"
    assert check(files, suite="replay", **signed).exit_code == 1, "and nobody's key was asked for"
    verdict = check(files, suite="replay", public_key=public_key, **signed)
    assert (verdict.exit_code, status(verdict)["signature"]) == (1, "failed")


def test_another_key_or_none(files: Files, public_key: Path, tmp_path: Path) -> None:
    other = write_public(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    verdict = check(files, suite="replay", public_key=other)
    assert (verdict.exit_code, status(verdict)["signature"]) == (1, "failed")
    moved = signature_path(files.path).rename(tmp_path / "moved.sig")
    verdict = check(files, suite="replay", public_key=public_key)
    assert (verdict.exit_code, status(verdict)["signature"]) == (3, "undecided")
    assert check(files, suite="replay", public_key=public_key, signature_file=moved).exit_code == 0
    moved.write_bytes(b"{}")
    assert check(files, suite="replay", public_key=public_key, signature_file=moved).exit_code == 3
    with pytest.raises(MissingInputError):
        check(files, public_key=tmp_path / "absent.pub")


def test_what_the_key_did_not_sign_is_not_run(
    files: Files, public_key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object, **__: object) -> None:
        pytest.fail("it was run")

    monkeypatch.setattr(opening, "open_session", run)
    other = write_public(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    assert check(files, public_key=other).exit_code == 1
    signature_path(files.path).unlink()
    assert check(files, public_key=public_key).exit_code == 3


# Policies


@pytest.mark.parametrize(
    ("policies", "code"),
    [
        ({"min_robust_accuracy": 0.05, "min_clean_accuracy": 0.3}, 0),
        ({"min_robust_accuracy": 0.99}, 1),
        ({"min_clean_accuracy": 1.0}, 1),
        ({"require_eps": "0.06"}, 0),
        ({"require_eps": "16/255"}, 1),
        ({"require_norm": "Linf"}, 0),
        ({"require_norm": "L2"}, 1),
        ({"min_samples": 128}, 0),
        ({"min_samples": 129}, 1),
        ({"require_assurance": "self-consistent"}, 0),
        ({"require_assurance": "signed"}, 1),
    ],
)
def test_policies(files: Files, policies: dict[str, Any], code: int) -> None:
    verdict = check(files, **policies)
    assert (verdict.answer, verdict.exit_code) == ("holds", code)
    assert "nothing else" not in verdict.summary


def test_a_threshold_within_sampling_error_asks_for_more_images(files: Files, sealed: Sealed) -> None:
    verdict = check(files, min_robust_accuracy=sealed.claim.robust / 128 - 0.01)
    assert verdict.exit_code == 3
    assert "more images needed: about" in verdict.policy[0].detail


@pytest.mark.parametrize("wrong", [{"min_robust_accuracy": 50.0}, {"require_eps": "8/0"}, {"require_norm": "L1"}])
def test_policies_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Policies(**wrong)


# Files that blind the attacks


def with_tail(files: Files, make: Callable[[str], list[onnx.NodeProto]], **constants: Any) -> onnx.ModelProto:
    """The model with more operators after its logits; the last of them gives ``tail``."""
    model = files.model
    model.graph.node.extend(make(model.graph.output[0].name))
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("tail", TensorProto.FLOAT, ["batch", 3]))
    return model


def test_saturated_outputs_raise_an_alarm(network: nn.Module, files: Files) -> None:
    def saturate(logits: str) -> list[onnx.NodeProto]:
        return [helper.make_node("Mul", [logits, "steep"], ["far"]), helper.make_node("Sigmoid", ["far"], ["tail"])]

    model = with_tail(files, saturate, steep=np.float32(1e5))
    files.rewrite(call_robust(files.evidence, 0), model=model)
    verdict = check(files)
    assert verdict.exit_code == 3
    assert any("gradient is zero" in alarm for alarm in verdict.alarms)
    assert any("eps = 0.5" in alarm for alarm in verdict.alarms)


def test_a_file_that_answers_everything_alike_hides_nothing(network: nn.Module, tmp_path: Path) -> None:
    # A model in its first epoch. Its poor claim is true, and eps = 0.5 does not break it either.
    stubborn = nn.Sequential(network, nn.Linear(3, 3)).eval()
    with torch.no_grad():
        stubborn[1].weight.mul_(1e-3)
        stubborn[1].bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    seal(export_onnx(stubborn, SIDE), Blobs(), THREAT, ExportSettings(samples=64, threads=1)).write(
        tmp_path / "model.onnx"
    )
    verdict = check(Files(tmp_path / "model.onnx"))
    assert verdict.exit_code == 0
    assert "same class" in verdict.checks[-1].detail
    assert check(Files(tmp_path / "model.onnx"), min_robust_accuracy=0.6).exit_code == 1


def test_a_softmax_is_undone(files: Files) -> None:
    model = with_tail(files, lambda logits: [helper.make_node("Softmax", [logits], ["tail"], axis=1)])
    honest = check(files.rewrite(model=model))
    assert honest.exit_code == 0
    assert "softmax" in next(check.detail for check in honest.checks if check.name == "gradients")
    assert check(files.rewrite(call_robust(files.evidence, 13), model=model)).exit_code == 1


def test_margins_squeezed_around_ties_do_not_stop_the_attack(files: Files) -> None:
    def squeeze(logits: str) -> list[onnx.NodeProto]:
        return [helper.make_node("Mul", [logits, "small"], ["tail"])]

    model = with_tail(files, squeeze, small=np.float32(1e-7))
    assert check(files.rewrite(call_robust(files.evidence, 13), model=model)).exit_code == 1


def test_logits_that_depend_on_the_batch_are_undecided(files: Files) -> None:
    def mix(logits: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("ReduceMean", [logits, "first"], ["mean"], keepdims=1),
            helper.make_node("Mul", ["mean", "part"], ["some"]),
            helper.make_node("Add", [logits, "some"], ["tail"]),
        ]

    model = with_tail(files, mix, first=np.array([0], np.int64), part=np.float32(0.05))
    verdict = check(files.rewrite(model=model))
    assert verdict.exit_code in (1, 3)
    assert status(verdict)["determinism"] == "undecided"


def test_an_operator_without_gradient_is_undecided_unless_accepted(files: Files) -> None:
    model = with_tail(files, lambda logits: [helper.make_node("Sinh", [logits], ["tail"])])
    files.rewrite(model=model)
    verdict = check(files)
    assert (verdict.exit_code, status(verdict)) == (3, {"structure": "undecided"})
    assert "'Sinh'" in verdict.checks[0].detail
    accepted = check(files, accept_black_box=True)
    assert accepted.exit_code == 0
    assert list(accepted.attacks) == ["natural", "Square"]


def test_not_a_number_is_never_right(files: Files) -> None:
    def poison(logits: str) -> list[onnx.NodeProto]:
        return [helper.make_node("Mul", [logits, "nan"], ["tail"])]

    assert check(files.rewrite(model=with_tail(files, poison, nan=np.float32(np.nan)))).exit_code in (1, 3)


# Pieces


def test_refutation_follows_the_protocols_thresholds() -> None:
    for attacked, least in ((128, 5), (256, 8), (512, 12)):
        assert is_refuted(least, attacked)
        assert not is_refuted(least - 1, attacked)
    assert not is_refuted(0, 0)


def test_the_estimate_takes_a_part_for_the_whole() -> None:
    assert robust_estimate(100, 3, 100) == 97
    assert robust_estimate(100, 1, 10) == 90
    assert robust_estimate(100, 0, 0) == 100


def test_lead_of_right_class() -> None:
    logits = np.array([[1, 3, 2], [1, 3, 2], [np.nan, 0, 0], [np.inf, 0, 0]], np.float32)
    assert lead(logits, np.array([1, 2, 0, 0])).tolist() == [1, -1, -np.inf, -np.inf]


def test_huge_logits_buy_no_wider_margin(files: Files) -> None:
    images = files.evidence.natural()
    plain = open_file_target(open_session(model_bytes(files.model), threads=1), images, files.model).tolerance
    for scale, expected in ((1e6, 1e-4), (1e-6, plain * 1e-6)):
        model = with_tail(files, lambda z: [helper.make_node("Mul", [z, "scale"], ["tail"])], scale=np.float32(scale))
        target = open_file_target(open_session(model_bytes(model), threads=1), images, model)
        assert target.tolerance == pytest.approx(expected, rel=0.3)


def test_the_kernel_of_trust_needs_no_training_code() -> None:
    code = (
        "import sys; from exporters.verification.examination import examine;"
        "rooms = 'compressor.training', 'compressor.methods', 'compressor.models.families';"
        "print([name for name in sys.modules if name.startswith(rooms)])"
    )
    root = Path(__file__).parents[3]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
