"""Keys, manifests and evidence without images on the command line: what each of them turns the answer into."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cli.main import main
from exporters.claim.claim import model_bytes, read_claim, with_claim
from exporters.claim.evidence import Evidence, parse_evidence

DATA = ["--data", "digits"]
QUICK = ["--seed", "1", "--threads", "1"]
REPLAY = [*QUICK, "--suite", "replay"]
SIGNED = ["--public-key", "key.pub", "--require-assurance", "signed"]
BOUND = ["--require-assurance", "dataset-bound"]


def write_key(folder: Path, name: str = "key", password: bytes | None = None) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem, public = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / f"{name}.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, lock))
    (folder / f"{name}.pub").write_bytes(key.public_key().public_bytes(pem, public))


def export(*more: str) -> list[str]:
    words = ["export", "student.safetensors", *DATA, "--eps", "0.02", "--evidence-samples", "32", "--threads", "1"]
    return [*words, *more]


@pytest.fixture(scope="module")
def made(digits_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small student, and what became of it: signed, and with digests in the place of images."""
    folder = tmp_path_factory.mktemp("binding")
    shutil.copy(digits_student, folder / "student.safetensors")
    write_key(folder)
    write_key(folder, "locked", b"secret")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COMPRESS_SIGN_PASSWORD", "secret")
        with (folder / "bare.txt").open("w") as told, redirect_stdout(told):
            assert main(export("--output", "bare.onnx", "--evidence", "digests", "--sign-key", "locked.pem")) == 0
        patch.setenv("COMPRESS_SIGN_PASSWORD", "")
        with (folder / "model.json").open("w") as told, redirect_stdout(told):
            assert main(export("--output", "model.onnx", "--sign-key", "key.pem", "--json")) == 0
        assert main(["manifest", "digits", "--image-size", "8", "--output", "digits.manifest"]) == 0
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("COMPRESS_SIGN_PASSWORD", raising=False)
    return tmp_path / "here"


Answer = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str]) -> Answer:
    def run(*words: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = main([*words, "--json"])
        value: dict[str, Any] = json.loads(capsys.readouterr().out)
        return code, value

    return run


def reseal(model: Path, change: Callable[[Evidence], Evidence]) -> None:
    """Write another pair that is consistent in itself, as anyone can."""
    message = onnx.load(model)
    evidence = parse_evidence(model.with_suffix(".evidence.npz").read_bytes())
    claim = read_claim(message)
    assert isinstance(evidence, Evidence)
    assert claim is not None
    changed = change(evidence)
    data = changed.to_bytes()
    counts = {"samples": len(changed), "clean_correct": int(changed.clean.sum()), "robust": int(changed.robust.sum())}
    model.with_suffix(".evidence.npz").write_bytes(data)
    sealed = replace(claim, evidence=sha256(data).hexdigest(), **counts).sealed()
    model.write_bytes(model_bytes(with_claim(message, sealed)))


def only_robust(evidence: Evidence) -> Evidence:
    """The easy images alone, honestly attacked."""
    order = np.flatnonzero(evidence.robust)
    kept = (getattr(evidence, name)[order] for name in ("images", "labels", "clean", "robust"))
    none = (evidence.adversarial_u8, evidence.adversarial_u8_index)
    floats = (evidence.adversarial_f32, evidence.adversarial_f32_index)
    return Evidence(*kept, *(array[:0] for array in (*none, *floats)))


# Signatures


def test_a_signed_export_verifies_as_signed(here: Path, answer: Answer) -> None:
    code, verdict = answer("verify", "model.onnx", *QUICK, *SIGNED)
    assert (code, verdict["verdict"], verdict["assurance"]) == (0, "holds", "signed")
    assert verdict["assurances"] == ["self-consistent", "signed"]


def test_a_consistent_pair_of_another_maker_is_not_the_signed_one(here: Path, answer: Answer) -> None:
    reseal(here / "model.onnx", only_robust)
    assert answer("verify", "model.onnx", *REPLAY)[0] == 0, "nothing was asked of it"
    code, verdict = answer("verify", "model.onnx", *REPLAY, *SIGNED)
    assert (code, verdict["verdict"]) == (1, "violated")


def test_a_file_signed_by_another_key(here: Path, answer: Answer) -> None:
    code, verdict = answer("verify", "model.onnx", *REPLAY, "--public-key", "locked.pub")
    assert (code, verdict["verdict"]) == (1, "violated")


def test_a_file_without_its_signature(here: Path, answer: Answer) -> None:
    (here / "model.sig").rename("elsewhere.sig")
    assert answer("verify", "model.onnx", *REPLAY, "--public-key", "key.pub")[0] == 3
    code, verdict = answer("verify", "model.onnx", *REPLAY, *SIGNED, "--signature-file", "elsewhere.sig")
    assert (code, verdict["assurance"]) == (0, "signed")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--public-key", "absent.pub"], "no key file"),
        (["--public-key", "key.pem"], "no public key"),
        (["--public-key", "key.pub", "--signature-file", "absent.sig"], "no signature file"),
        (["--signature-file", "model.sig"], "by a key alone"),
        (["--manifest", "absent.manifest"], "no manifest"),
        (["--manifest", "key.pub"], "not a manifest"),
    ],
)
def test_what_the_caller_names_must_be_there(words: list[str], reason: str, here: Path, answer: Answer) -> None:
    code, value = answer("verify", "model.onnx", *REPLAY, *words)
    assert code == 2
    assert reason in value["error"]["message"]


def test_a_report_never_replaces_a_signature(here: Path) -> None:
    before = (here / "model.sig").read_bytes()
    assert main(["verify", "model.onnx", *REPLAY, "--junit", "model.sig"]) == 2
    assert (here / "model.sig").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--output", "new.onnx", "--sign-key", "locked.pem"], "is encrypted"),
        (["--output", "new.onnx", "--sign-key", "key.pub"], "key.pub holds no private key."),
        (["--output", "key.pub"], "is not a folder"),
        (["--output", "key.pub/new.onnx"], "is not a folder"),
        (["--output", "new.onnx", "--sign-key", "absent.pem"], "no key file"),
        (["--output", "new.onnx", "--evidence-file", "new.sig"], "another file of this export"),
        (["--output", "new.onnx", "--evidence", "some"], "is not known"),
        (["--output", "new.onnx", "--evidence", "none", "--sign-key", "key.pem"], "nothing to sign"),
        (["--output", "model.onnx"], "exists already"),
        (["--output", "signed-elsewhere.onnx"], "signed-elsewhere.sig exists already"),
    ],
)
def test_an_export_is_refused_before_any_work(words: list[str], reason: str, here: Path, answer: Answer) -> None:
    shutil.copy("model.sig", "signed-elsewhere.sig")
    files = {path.name: path.read_bytes() for path in here.iterdir()}
    code, value = answer(*export(*words))
    assert code == 2
    assert reason in value["error"]["message"]
    assert {path.name: path.read_bytes() for path in here.iterdir()} == files


def test_a_password_that_is_set_to_nothing_is_none(here: Path, answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_SIGN_PASSWORD", "")
    _, value = answer(*export("--output", "new.onnx", "--sign-key", "locked.pem"))
    assert "Set COMPRESS_SIGN_PASSWORD" in value["error"]["hint"]


# Manifests


def test_a_manifest_binds_what_the_exporter_did_not_choose(here: Path, answer: Answer) -> None:
    code, verdict = answer("verify", "model.onnx", *REPLAY, "--manifest", "digits.manifest", *BOUND)
    assert (code, verdict["assurance"]) == (0, "dataset-bound")
    reseal(here / "model.onnx", only_robust)
    code, verdict = answer("verify", "model.onnx", *REPLAY, "--manifest", "digits.manifest", *BOUND)
    assert (code, verdict["verdict"]) == (1, "violated")


def test_a_manifest_at_another_size_says_so(here: Path, answer: Answer) -> None:
    assert main(["manifest", "digits", "--image-size", "16", "--output", "large.manifest"]) == 0
    code, verdict = answer("verify", "model.onnx", *REPLAY, "--manifest", "large.manifest", *BOUND)
    assert (code, verdict["verdict"]) == (1, "holds"), "an unmet policy, and no finding against the file"
    (detail,) = (check["detail"] for check in verdict["checks"] if check["name"] == "data")
    assert "3x16x16" in detail
    assert "3x8x8" in detail


def test_a_manifest_is_not_replaced_unasked(here: Path, answer: Answer) -> None:
    before = (here / "digits.manifest").read_bytes()
    words = ["manifest", "digits", "--image-size", "8", "--output", "digits.manifest"]
    assert answer(*words)[0] == 2
    code, value = answer(*words, "--force")
    assert (code, value["schema"]) == (0, "compress.manifest/1")
    assert (here / "digits.manifest").read_bytes() == before, "equal data give equal text"
    assert value["digest"] in before.decode()


# Evidence without images


def test_digests_need_the_data(here: Path, answer: Answer) -> None:
    assert answer("verify", "bare.onnx", *REPLAY)[0] == 3
    assert answer("verify", "bare.onnx", *REPLAY, "--manifest", "digits.manifest")[0] == 3, "there is nothing to attack"
    code, verdict = answer("verify", "bare.onnx", *QUICK, *DATA, *BOUND, "--public-key", "locked.pub")
    assert (code, verdict["assurances"]) == (0, ["self-consistent", "dataset-bound", "signed"])
    assert (here / "bare.evidence.npz").stat().st_size < 32 * (32 + 8 + 2) + 1500, "no room for pictures"


def test_no_evidence_is_no_claim(here: Path, answer: Answer) -> None:
    code, value = answer(*export("--output", "model.onnx", "--evidence", "none", "--force"))
    (entry,) = value["exports"]
    assert (code, entry["evidence"], entry["verdict"], entry["signature"]) == (0, "none", None, None)
    assert not (here / "model.sig").exists(), "it was of the file that is gone"
    assert not (here / "model.evidence.npz").exists()
    code, verdict = answer("verify", "model.onnx", *REPLAY)
    assert (code, verdict["verdict"], verdict["claim"]) == (3, "undecided", None)


def test_what_was_written_is_said(made: Path) -> None:
    (entry,) = json.loads((made / "model.json").read_text())["exports"]
    assert (entry["evidence"], entry["signature"], entry["verdict"]) == ("images", "model.sig", "holds")
    assert (made / "bare.txt").read_text().endswith("compress verify bare.onnx --data digits\n")


def test_the_claim_is_one_of_the_published_schema(here: Path, answer: Answer) -> None:
    schema = json.loads((Path(__file__).parents[3] / "docs" / "claim.schema.json").read_text(encoding="utf-8"))
    validator = pytest.importorskip("jsonschema").Draft202012Validator(schema)
    _, inspected = answer("inspect", "model.onnx")
    assert list(validator.iter_errors(inspected["claim"])) == []


def test_the_reader_in_the_documentation_reads_it_and_finds_a_lie(here: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "file-formats.md").read_text(encoding="utf-8")
    reader = compile(page.partition("```python\n")[2].partition("```")[0], "file-formats.md", "exec")
    exec(reader, {})
    reseal(here / "model.onnx", lambda evidence: replace(evidence, robust=evidence.clean.copy()))
    with pytest.raises(AssertionError):
        exec(reader, {})
