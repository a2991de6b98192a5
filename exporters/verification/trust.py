"""What the caller trusts besides this program: a manifest of the dataset, and a key that must have signed the file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    from exporters.verification.manifest import Manifest
    from exporters.verification.request import Request


@dataclass(frozen=True)
class Trust:
    """What was read of it.

    Attributes:
        manifest: of a dataset's test split; None where none was given.
        key: whose signature is asked for; None where none is.
    """

    manifest: Manifest | None = None
    key: EllipticCurvePublicKey | None = None


def read_trust(request: Request) -> Trust:
    """Read what the caller named; what is wrong with it is the caller's error, and no finding about a file.

    Raises:
        MissingInputError, UnreadableManifestError, UsageError: manifest or key is absent or damaged.
        ModuleNotFoundError: a key needs the package cryptography.
    """
    key, digests = None, None
    if request.public_key is not None:
        from exporters.claim.signing import read_public_key

        key = read_public_key(request.public_key)
    if request.manifest is not None:
        from exporters.verification.manifest import read_manifest

        digests = read_manifest(request.manifest)
    return Trust(digests, key)
