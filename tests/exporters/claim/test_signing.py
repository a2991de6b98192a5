"""Signatures: what one key signed, another does not vouch for, and no byte of it can be changed."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from compressor.core.errors import MissingInputError, UnreadableSignatureError, UsageError
from exporters.claim.signing import (
    MAX_BYTES,
    BadSignatureError,
    check_signature,
    read_private_key,
    read_public_key,
    read_signature,
    sign_files,
    signature_path,
)

KEY = ec.generate_private_key(ec.SECP256R1())
FILES = {"model.onnx": sha256(b"model").hexdigest(), "model.evidence.npz": sha256(b"evidence").hexdigest()}


def write_keys(folder: Path, key: Any = KEY, password: bytes | None = None) -> tuple[Path, Path]:
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private, public = folder / "key.pem", folder / "key.pub"
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock))
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
def test_what_was_signed_is_vouched_for(curve: ec.EllipticCurve, tmp_path: Path) -> None:
    private, public = write_keys(tmp_path, ec.generate_private_key(curve))
    bundle = sign_files(FILES, "model", read_private_key(private))
    signed = check_signature(bundle, read_public_key(public))
    assert signed.digests == FILES
    assert signed.covers(FILES["model.onnx"])
    assert not signed.covers(sha256(b"another model").hexdigest())


def test_another_key_did_not_sign_it() -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(BadSignatureError, match="not made by this key"):
        check_signature(sign_files(FILES, "model", KEY), other.public_key())


def test_the_signature_is_dsse_over_the_statement() -> None:
    """By the text of the DSSE protocol and of model-signing's predicate, with another hand than the code's."""
    bundle = json.loads(sign_files(FILES, "model", KEY))
    envelope = bundle["dsseEnvelope"]
    payload = base64.b64decode(envelope["payload"])
    signed = b"DSSEv1 28 application/vnd.in-toto+json " + str(len(payload)).encode() + b" " + payload
    KEY.public_key().verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed, ec.ECDSA(_sha256()))
    statement = json.loads(payload)
    names = [entry["name"] for entry in statement["predicate"]["resources"]]
    assert names == sorted(FILES)
    root = sha256(b"".join(bytes.fromhex(FILES[name]) for name in names)).hexdigest()
    assert statement["subject"] == [{"name": "model", "digest": {"sha256": root}}]


def _sha256() -> Any:
    from cryptography.hazmat.primitives import hashes

    return hashes.SHA256()


def resigned(change: Callable[[dict[str, Any]], object]) -> bytes:
    """A signature by the right key over a statement that was changed before it was signed."""
    bundle = json.loads(sign_files(FILES, "model", KEY))
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    change(statement)
    payload = json.dumps(statement).encode()
    encoded = b"DSSEv1 28 application/vnd.in-toto+json " + str(len(payload)).encode() + b" " + payload
    raw = KEY.sign(encoded, ec.ECDSA(_sha256()))
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    bundle["dsseEnvelope"]["signatures"] = [{"sig": base64.b64encode(raw).decode()}]
    return json.dumps(bundle).encode()


@pytest.mark.parametrize(
    "change",
    [
        lambda statement: statement.update(predicateType="https://in-toto.io/attestation/test-result/v0.1"),
        lambda statement: statement.update(_type="https://in-toto.io/Statement/v0.1"),
        lambda statement: statement.update(subject=[]),
        lambda statement: statement["subject"][0]["digest"].update(sha256="0" * 64),
        lambda statement: statement["predicate"].update(resources=[]),
        lambda statement: statement["predicate"]["resources"].append(statement["predicate"]["resources"][0]),
        lambda statement: statement["predicate"]["resources"][0].update(algorithm="md5"),
        lambda statement: statement["predicate"]["resources"][0].update(digest="xyz"),
        lambda statement: statement["predicate"]["resources"].insert(0, 7),
    ],
)
def test_a_statement_of_another_kind_is_refused_although_it_is_signed(change: Callable[[Any], object]) -> None:
    with pytest.raises(UnreadableSignatureError):
        check_signature(resigned(change), KEY.public_key())
    assert check_signature(resigned(lambda statement: None), KEY.public_key()).digests == FILES


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    bundle: dict[str, Any] = json.loads(sign_files(FILES, "model", KEY))
    change(bundle["dsseEnvelope"])
    return json.dumps(bundle).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"dsseEnvelope": {}, "dsseEnvelope": {}}',
        changed(lambda envelope: envelope.update(payloadType="text/plain")),
        changed(lambda envelope: envelope.update(signatures=[])),
        changed(lambda envelope: envelope["signatures"].append(envelope["signatures"][0])),
        changed(lambda envelope: envelope.update(payload="not base64!")),
        changed(lambda envelope: envelope.update(payload=None)),
        changed(lambda envelope: envelope["signatures"][0].update(sig=7)),
    ],
)
def test_what_is_no_signature_file_is_said_plainly(data: bytes) -> None:
    with pytest.raises(UnreadableSignatureError):
        check_signature(data, KEY.public_key())


def test_a_changed_payload_is_not_what_was_signed() -> None:
    def swap(envelope: dict[str, Any]) -> None:
        text = base64.b64decode(envelope["payload"]).replace(FILES["model.onnx"].encode(), b"0" * 64)
        envelope["payload"] = base64.b64encode(text).decode()

    with pytest.raises(BadSignatureError):
        check_signature(changed(swap), KEY.public_key())


def test_keys_of_other_kinds_are_refused(tmp_path: Path) -> None:
    for number, key in enumerate((ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256K1()))):
        folder = tmp_path / str(number)
        folder.mkdir()
        private, public = write_keys(folder, key)
        with pytest.raises(UsageError, match="curve") as caught:
            read_private_key(private)
        assert "prime256v1" in caught.value.hint
        with pytest.raises(UsageError, match="curve"):
            read_public_key(public)


def test_an_encrypted_key_needs_its_password(tmp_path: Path) -> None:
    private, _ = write_keys(tmp_path, password=b"secret")
    with pytest.raises(UsageError, match="encrypted") as caught:
        read_private_key(private)
    assert "COMPRESS_SIGN_PASSWORD" in caught.value.hint
    with pytest.raises(UsageError, match="password"):
        read_private_key(private, "wrong")
    assert read_private_key(private, "secret").private_numbers() == KEY.private_numbers()


def test_a_password_that_is_set_to_nothing_is_none(tmp_path: Path) -> None:
    private, _ = write_keys(tmp_path)
    assert read_private_key(private, "").private_numbers() == KEY.private_numbers()


def test_a_key_may_come_through_a_pipe(tmp_path: Path) -> None:
    private, _ = write_keys(tmp_path)
    with subprocess.Popen(["cat", private], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        key = read_private_key(Path(f"/dev/fd/{process.stdout.fileno()}"))
    assert key.private_numbers() == KEY.private_numbers()


def test_files_that_are_no_keys(tmp_path: Path) -> None:
    private, public = write_keys(tmp_path)
    secret = private.read_text().splitlines()[1]
    private.write_text(private.read_text()[:-40])
    for read, path in ((read_private_key, public), (read_public_key, private), (read_private_key, private)):
        with pytest.raises(UsageError) as caught:
            read(path)
        assert secret[:20] not in f"{caught.value.message} {caught.value.hint}"
    with pytest.raises(MissingInputError):
        read_public_key(tmp_path / "absent")
    public.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(UsageError, match="large"):
        read_public_key(public)


def test_a_signature_file_lies_beside_the_model_and_is_bounded(tmp_path: Path) -> None:
    path = signature_path(tmp_path / "model.onnx")
    assert path == tmp_path / "model.sig"
    with pytest.raises(MissingInputError):
        read_signature(path)
    path.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(UnreadableSignatureError, match="larger"):
        read_signature(path)
