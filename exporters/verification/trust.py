"""What the caller trusts besides this program: a manifest of the dataset, and a key that must have signed the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    from exporters.verification.manifest import Manifest


@dataclass(frozen=True)
class Trust:
    """See :func:`read_trust`.

    Attributes:
        manifest: of a dataset's test split; None where none was given.
        key: whose signature is asked for; None where none is.
        signature: the signature file, where it does not lie beside the model.
    """

    manifest: Manifest | None = None
    key: EllipticCurvePublicKey | None = None
    signature: Path | None = None


def read_trust(manifest: Path | None, public_key: Path | None, signature: Path | None) -> Trust:
    """Read what the caller named; what is wrong with it is the caller's error, and no finding about a file.

    Args:
        manifest: of a dataset, see :mod:`exporters.verification.manifest`.
        public_key: a PEM file.
        signature: the signature file, where it does not lie beside the model.

    Raises:
        MissingInputError, UnreadableManifestError, UsageError: one of them is absent or damaged.
        ModuleNotFoundError: a key needs the package cryptography.
    """
    key, digests = None, None
    if public_key is not None:
        from exporters.claim.signing import read_public_key

        key = read_public_key(public_key)
    if manifest is not None:
        from exporters.verification.manifest import read_manifest

        digests = read_manifest(manifest)
    return Trust(digests, key, signature)
