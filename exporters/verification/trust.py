"""What the caller trusts besides this program: a manifest of the dataset, and a key that must have signed the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.errors import MissingInputError, UsageError
from exporters.verification.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey


@dataclass(frozen=True)
class Trust:
    """See :func:`read_trust`.

    Attributes:
        manifest: of a dataset's test split; None where none was given.
        key: whose signature is asked for; None where none is.
        signature: the signature file, where it does not lie beside the model.
        words: the options of the command line that say the same.
    """

    manifest: Manifest | None = None
    key: EllipticCurvePublicKey | None = None
    signature: Path | None = None
    words: tuple[str, ...] = ()


def read_trust(manifest: Path | None, public_key: Path | None, signature: Path | None) -> Trust:
    """Read what the caller named; what is wrong with it is the caller's error, and no finding about a file.

    Args:
        manifest: of a dataset, see :mod:`exporters.verification.manifest`.
        public_key: a PEM file.
        signature: the signature file, where it does not lie beside the model.

    Raises:
        MissingInputError, UnreadableManifestError, UsageError: one of them is absent or damaged, or a signature is
            named and no key.
        ModuleNotFoundError: a key needs the package cryptography.
    """
    if signature is not None and public_key is None:
        raise UsageError(
            f"the signature {signature} can be checked by a key alone.", "Name the key of its owner with --public-key."
        )
    if signature is not None and not signature.is_file():
        raise MissingInputError(f"there is no signature file {signature}.")
    given = {"--manifest": manifest, "--public-key": public_key, "--signature-file": signature}
    key = None
    if public_key is not None:
        from exporters.signing import read_public_key

        key = read_public_key(public_key)
    return Trust(
        None if manifest is None else read_manifest(manifest),
        key,
        signature,
        tuple(word for name, path in given.items() if path is not None for word in (name, str(path))),
    )
