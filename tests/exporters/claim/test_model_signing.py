"""Another hand's signatures: OpenSSF model-signing, recorded once, and asked where it is installed.

Its command line is the oracle, so that it may live in an environment of its own: ``pip install model-signing
pyopenssl``, then run the tests with its ``bin`` folder in ``PATH``.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from exporters.claim.signing import BadSignatureError, check_signature, key_hint, sign_files

FILES = {"model.onnx": b"model", "model.evidence.npz": b"evidence"}
DIGESTS = {name: sha256(data).hexdigest() for name, data in FILES.items()}

# Written by model-signing 1.1.1: `model_signing sign key FOLDER --private_key KEY`.
RECORDED_KEY = b"""-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAExgefnoyvAyvc6I/8T39eBeZM32t+
fG/l4Bseambxg5Bnna9UGPMADBDcb2QKQGrkaZeCjLE9cXLPOIj8hdXq/g==
-----END PUBLIC KEY-----
"""
RECORDED_HINT = "5248cd026ecb87a5eb193391e9016e955a571887cd1a9767ffad739276425563"
RECORDED_STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "subject": [
        {
            "name": "tiny",
            "digest": {"sha256": "74f692966e49e4391c3ec1e5fe9e8441d967d7e496f3dbe4c3b03ce8ee05f4f0"},
        }
    ],
    "predicateType": "https://model_signing/signature/v1.0",
    "predicate": {
        "serialization": {
            "method": "files",
            "hash_type": "sha256",
            "allow_symlinks": False,
            "ignore_paths": [".gitignore", ".gitattributes", ".github", ".git"],
        },
        "resources": [
            {
                "name": "model.evidence.npz",
                "digest": "ee8250fb76e094b34b471f13a73dbbe51d1ae142e9df59d7c0d31ec20f0a0a8e",
                "algorithm": "sha256",
            },
            {
                "name": "model.onnx",
                "digest": "9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4",
                "algorithm": "sha256",
            },
        ],
    },
}
RECORDED_SIGNATURE = "MEQCIE3o6zZYW2dowQwK06CI++Iw/Ju9Q2dr0wY6PUDazAhIAiA/qHYK1DrAjFz/mL9KPA5Zw0R98Py3U2Cz1q76+BxHSg=="


def recorded() -> bytes:
    payload = json.dumps(RECORDED_STATEMENT, indent=2).encode()
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": "application/vnd.in-toto+json",
        "signatures": [{"sig": RECORDED_SIGNATURE, "keyid": ""}],
    }
    material = {"publicKey": {"hint": RECORDED_HINT}, "tlogEntries": []}
    bundle = {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": material,
        "dsseEnvelope": envelope,
    }
    return json.dumps(bundle).encode()


def test_a_recorded_signature_is_understood() -> None:
    key = load_pem_public_key(RECORDED_KEY)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert check_signature(recorded(), key).digests == DIGESTS
    assert key_hint(key) == RECORDED_HINT
    with pytest.raises(BadSignatureError):
        check_signature(recorded().replace(b'"sig": "MEQCIE3', b'"sig": "MEQCIE4'), key)


def test_a_signature_of_ours_has_the_same_shape() -> None:
    def shape(value: object) -> object:
        if isinstance(value, dict):
            return {name: shape(member) for name, member in value.items() if name != "payload"}
        return [shape(value[0])] if isinstance(value, list) and value else type(value)

    ours = json.loads(sign_files(DIGESTS, "tiny", ec.generate_private_key(ec.SECP256R1())))
    assert shape(ours) == shape(json.loads(recorded()))
    statement = json.loads(base64.b64decode(ours["dsseEnvelope"]["payload"]))
    statement["predicate"]["serialization"]["ignore_paths"] = [".git"]
    assert shape(statement) == shape(RECORDED_STATEMENT)
    assert statement["subject"] == RECORDED_STATEMENT["subject"]


TOOL = shutil.which("model_signing")
with_model_signing = pytest.mark.skipif(TOOL is None, reason="model_signing is not in PATH")
CURVES = [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()]


def model_signing(*words: str, folder: Path) -> int:
    assert TOOL is not None
    return subprocess.run([TOOL, *words], cwd=folder, check=False, capture_output=True, timeout=120).returncode


@pytest.fixture(params=CURVES, ids=lambda curve: curve.name)
def key(request: pytest.FixtureRequest, tmp_path: Path) -> ec.EllipticCurvePrivateKey:
    """A key on a curve, its files, and a folder ``model`` with the two files to sign."""
    made = ec.generate_private_key(request.param)
    pem, public = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    secret = made.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(secret)
    (tmp_path / "key.pub").write_bytes(made.public_key().public_bytes(pem, public))
    (tmp_path / "model").mkdir()
    for name, data in FILES.items():
        (tmp_path / "model" / name).write_bytes(data)
    return made


@with_model_signing
def test_model_signing_accepts_ours_and_finds_a_changed_byte(key: ec.EllipticCurvePrivateKey, tmp_path: Path) -> None:
    (tmp_path / "model" / "model.sig").write_bytes(sign_files(DIGESTS, "model", key))
    words = ["verify", "key", "model", "--signature", "model/model.sig", "--public_key", "key.pub"]
    assert model_signing(*words, folder=tmp_path) == 0
    (tmp_path / "model" / "model.evidence.npz").write_bytes(b"Evidence")
    assert model_signing(*words, folder=tmp_path) != 0


@with_model_signing
def test_we_accept_what_model_signing_signs(key: ec.EllipticCurvePrivateKey, tmp_path: Path) -> None:
    words = ["sign", "key", "model", "--signature", "model.sig", "--private_key", "key.pem"]
    assert model_signing(*words, folder=tmp_path) == 0
    assert check_signature((tmp_path / "model.sig").read_bytes(), key.public_key()).digests == DIGESTS
