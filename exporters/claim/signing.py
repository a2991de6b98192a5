"""Signatures over model and evidence, in the format of OpenSSF model-signing: a Sigstore bundle, made with a key.

The bundle holds a DSSE envelope (github.com/secure-systems-lab/dsse) around an in-toto statement whose predicate lists
the files with their digests. What this writes, ``model_signing verify key`` accepts, and the other way round. Nothing
here reaches for a network: there is no certificate and no transparency log.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.core.errors import MissingInputError, UnreadableSignatureError, UsageError
from compressor.system.files import canonical_json, unique_keys
from exporters.claim.companions import read_companion

if TYPE_CHECKING:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"

MAX_BYTES = 1 << 20
"""The largest signature or key file that is read."""
MAX_RESOURCES = 10_000


class BadSignatureError(Exception):
    """A signature that reads well and is not one of these files by this key: a finding, not an error of the user's."""


@dataclass(frozen=True)
class SignedFiles:
    """What a valid signature vouches for.

    Attributes:
        digests: name of a file, as it was when it was signed, to the SHA-256 of its bytes in hexadecimal.
    """

    digests: Mapping[str, str]

    def covers(self, digest: str) -> bool:
        """Whether a file of this SHA-256 was signed, whatever it is called now."""
        return digest in self.digests.values()


def signature_path(model: Path) -> Path:
    """Where the signature of a model file lies: ``NAME.onnx`` has ``NAME.sig`` beside it."""
    return model.with_suffix(".sig")


def sign_files(files: Mapping[str, str], name: str, key: EllipticCurvePrivateKey) -> bytes:
    """The signature file for some files.

    Args:
        files: name to the SHA-256 of the file's bytes, in hexadecimal.
        name: of the whole.
        key: from :func:`read_private_key`.

    Returns:
        The bundle as JSON. ECDSA draws a random number, so that signing twice gives two signatures.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    resources = [{"name": file, "algorithm": "sha256", "digest": files[file]} for file in sorted(files)]
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": _root(resources)}}],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []},
            "resources": resources,
        },
    }
    payload = canonical_json(statement).encode()
    signature = key.sign(_encoded(PAYLOAD, payload), ec.ECDSA(_hash_of(key.public_key())))
    bundle = {
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": key_hint(key.public_key())}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return (canonical_json(bundle) + "\n").encode()


def check_signature(bundle: bytes, key: EllipticCurvePublicKey) -> SignedFiles:
    """Read a signature of unknown origin, and what it vouches for.

    Args:
        bundle: the signature file's bytes.
        key: that must have signed it, from :func:`read_public_key`.

    Raises:
        UnreadableSignatureError: not a signature file that this program knows.
        BadSignatureError: it is by another key, or was changed after it was made.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec

    envelope = _object(_read_json(bundle, "the signature file"), "dsseEnvelope")
    if envelope.get("payloadType") != PAYLOAD:
        raise UnreadableSignatureError("the signature is not one over an in-toto statement.")
    signatures = envelope.get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
        raise UnreadableSignatureError("the signature file does not hold exactly one signature.")
    payload = _decoded(envelope.get("payload"))
    try:
        key.verify(_decoded(signatures[0].get("sig")), _encoded(PAYLOAD, payload), ec.ECDSA(_hash_of(key)))
    except InvalidSignature:
        raise BadSignatureError("the signature was not made by this key, or was changed afterwards") from None
    return _signed_files(_read_json(payload, "what was signed"))


def key_hint(key: EllipticCurvePublicKey) -> str:
    """SHA-256 of the public key's PEM text, in hexadecimal: what a bundle says of the key, and a person can compare."""
    from cryptography.hazmat.primitives import serialization

    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return sha256(pem).hexdigest()


def read_private_key(path: Path, password: str | None = None) -> EllipticCurvePrivateKey:
    """A PEM file with an elliptic-curve key (P-256, P-384 or P-521).

    Args:
        path: the file.
        password: of an encrypted key.

    Raises:
        MissingInputError: there is no such file.
        UsageError: it holds no such key, or it is encrypted and the password is missing or wrong.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    text = _read_key(path, _HOW)
    secret = password.encode() if password else None  # a variable that is set to nothing is no password
    try:
        key = load_pem_private_key(text, secret)
    except TypeError:
        hint = "Set COMPRESS_SIGN_PASSWORD." if secret is None else "Unset COMPRESS_SIGN_PASSWORD."
        state = "encrypted" if secret is None else "not encrypted, and a password was given"
        raise UsageError(f"the key {path} is {state}.", hint) from None
    except ValueError:  # the library's own text may quote what it read
        opened = " that this password opens" if secret else ""
        raise UsageError(f"{path} holds no private key{opened}.", _HOW) from None
    except Exception:  # among them UnsupportedAlgorithm
        raise UsageError(f"{path} holds no private key that can be used.", _HOW) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UsageError(f"the key in {path} is not one on an elliptic curve.", _HOW)
    _hash_of(key.public_key())
    return key


def read_public_key(path: Path) -> EllipticCurvePublicKey:
    """A PEM file with the public half of such a key.

    Raises:
        MissingInputError: there is no such file.
        UsageError: it holds no such key.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    text = _read_key(path, _HOW_PUBLIC)
    try:
        key = load_pem_public_key(text)
    except Exception:  # the library raises several kinds
        raise UsageError(f"{path} holds no public key.", _HOW_PUBLIC) from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise UsageError(f"the key in {path} is not one on an elliptic curve.", _HOW_PUBLIC)
    _hash_of(key)
    return key


def read_signature(path: Path) -> bytes:
    """The bytes of a signature file, its size checked first.

    Raises:
        MissingInputError: there is none.
        UnreadableSignatureError: it is too large, or the system refuses.
    """
    hint = "Export with --sign-key, or sign it afterwards."
    return read_companion(path, "signature", MAX_BYTES, UnreadableSignatureError, hint)


_HOW = "Make one with: openssl ecparam -name prime256v1 -genkey -noout -out key.pem"
_HOW_PUBLIC = "Get it from the private key with: openssl ec -in key.pem -pubout -out key.pub"


def _read_key(path: Path, hint: str) -> bytes:
    try:  # whatever can be read: secrets often come through a pipe
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise MissingInputError(f"there is no key file {path}.", hint) from error
    except OSError as error:
        raise MissingInputError(f"cannot read {path}: {error.strerror or error}.", hint) from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{path} is too large for a key.", hint)
    return data


def _hash_of(key: EllipticCurvePublicKey) -> hashes.HashAlgorithm:
    from cryptography.hazmat.primitives import hashes

    known = {"secp256r1": hashes.SHA256(), "secp384r1": hashes.SHA384(), "secp521r1": hashes.SHA512()}
    if key.curve.name not in known:
        raise UsageError(f"keys on the curve {key.curve.name} are not used for signing here.", _HOW)
    return known[key.curve.name]


def _encoded(kind: str, payload: bytes) -> bytes:
    """What DSSE signs: ``DSSEv1 SP len(type) SP type SP len(payload) SP payload``."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)


def _root(resources: list[dict[str, str]]) -> str:
    """The digest of the whole: SHA-256 over the digests of the files, in the order in which they are listed."""
    return sha256(b"".join(bytes.fromhex(entry["digest"]) for entry in resources)).hexdigest()


def _signed_files(statement: dict[str, Any]) -> SignedFiles:
    if statement.get("_type") != STATEMENT or statement.get("predicateType") != PREDICATE:
        raise UnreadableSignatureError("what was signed is not a statement about a model's files.")
    subjects, resources = statement.get("subject"), _object(statement, "predicate").get("resources")
    if not isinstance(resources, list) or not 1 <= len(resources) <= MAX_RESOURCES:
        raise UnreadableSignatureError("what was signed does not list the model's files.")
    digests: dict[str, str] = {}
    for entry in resources:
        name, digest = (entry.get("name"), entry.get("digest")) if isinstance(entry, dict) else (None, None)
        if not (isinstance(name, str) and isinstance(digest, str) and entry.get("algorithm") == "sha256"):
            raise UnreadableSignatureError("what was signed lists a file in a way that this program does not know.")
        if name in digests or len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise UnreadableSignatureError("what was signed lists a file twice, or without its digest.")
        digests[name] = digest
    if not isinstance(subjects, list) or len(subjects) != 1:
        raise UnreadableSignatureError("what was signed does not name one model.")
    if _object(subjects[0], "digest").get("sha256") != _root(resources):
        raise UnreadableSignatureError("what was signed contradicts itself: its files do not give its digest.")
    return SignedFiles(digests)


def _read_json(data: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(data.decode(), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise UnreadableSignatureError(f"{what} is not the JSON of a signature.") from error
    if not isinstance(value, dict):
        raise UnreadableSignatureError(f"{what} is not the JSON of a signature.")
    return value


def _object(value: Any, name: str) -> dict[str, Any]:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, dict):
        raise UnreadableSignatureError(f"the signature file lacks {name!r}.")
    return found


def _decoded(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise UnreadableSignatureError("the signature file holds something that is not base64.") from error
