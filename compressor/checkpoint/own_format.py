"""Our own checkpoint: safetensors whose header holds one canonical-JSON value that says everything about the model.

It holds no time and no path, so equal work gives equal bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from compressor.checkpoint.reading import OWN_KEY, parse_json
from compressor.core.errors import UnreadableCheckpointError, WriteError
from compressor.core.types import ModelSpec, Normalization
from compressor.models.classifier import Classifier
from compressor.models.user_code import is_user_code
from compressor.system.files import atomic_path, canonical_json

SCHEMA = "compress.checkpoint/1"
_MOST = 1_000_000


def save_checkpoint(path: Path, classifier: Classifier, metadata: Mapping[str, Any]) -> None:
    """Write the network's tensors, the spec and ``metadata`` to ``path``, atomically.

    Args:
        path: a ``.safetensors`` file; it is replaced if it is there.
        classifier: on any device; its network's tensors are written under the network's own names.
        metadata: JSON values only: recipe, dataset, threat, the parent's digest. No clock and no path belongs here.

    Raises:
        WriteError: the file system refused.
    """
    header = canonical_json({"schema": SCHEMA, "model": spec_to_json(classifier.spec), "metadata": dict(metadata)})
    state = {
        key: tensor.detach().to("cpu", memory_format=torch.contiguous_format)
        for key, tensor in classifier.network.state_dict().items()
    }
    with atomic_path(path) as temporary:
        try:
            save_file(state, temporary, metadata={OWN_KEY: header})
        except SafetensorError as error:
            raise WriteError(f"cannot write {path}: {error}.", "Free some space or choose another folder.") from error


def parse_own(path: Path, header: Mapping[str, str]) -> tuple[ModelSpec, dict[str, Any]] | None:
    """The spec and the metadata that ``save_checkpoint`` wrote, or ``None`` where the file is not ours.

    Raises:
        UnreadableCheckpointError: it is ours and damaged, or of a schema that this version does not know.
    """
    if OWN_KEY not in header:
        return None
    document = parse_json(path, header[OWN_KEY])
    if not isinstance(document, dict):
        raise _damaged(path, "its description is not an object")
    if document.get("schema") != SCHEMA:
        raise UnreadableCheckpointError(
            f"{path} has the schema {document.get('schema')!r}, and this version reads {SCHEMA!r}.", "Upgrade compress."
        )
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        raise _damaged(path, "its metadata is not an object")
    return spec_from_json(path, document.get("model")), metadata


def spec_to_json(spec: ModelSpec) -> dict[str, Any]:
    """A spec as JSON values; a source's digest is there only where there is a source."""
    normalization = spec.normalization
    source = {} if spec.source_sha256 is None else {"source_sha256": spec.source_sha256}
    return {
        "name": spec.name,
        "classes": spec.classes,
        "image_size": spec.image_size,
        "normalization": normalization and {"mean": list(normalization.mean), "std": list(normalization.std)},
        "activation": spec.activation,
        **source,
    }


def spec_from_json(path: Path, value: Any) -> ModelSpec:
    """The inverse of ``spec_to_json``, for a value that anyone may have written.

    Raises:
        UnreadableCheckpointError: a field is missing, or of the wrong type or range.
    """
    if not isinstance(value, dict):
        raise _damaged(path, "it does not describe its model")
    name, activation = value.get("name"), value.get("activation")
    if not isinstance(name, str) or activation not in ("relu", "silu"):
        raise _damaged(path, "its model's name or activation is wrong")
    source = value.get("source_sha256")
    if is_user_code(name) != (isinstance(source, str) and re.fullmatch("[0-9a-f]{64}", source) is not None):
        raise _damaged(path, "its model's source digest is missing, wrong or of no use")
    return ModelSpec(
        name=name,
        classes=_count(path, value, "classes", least=2),
        image_size=_count(path, value, "image_size", least=1),
        normalization=_normalization(path, value.get("normalization")),
        activation=activation,
        source_sha256=source,
    )


def _count(path: Path, value: dict[str, Any], field: str, least: int) -> int:
    count = value.get(field)
    if not isinstance(count, int) or isinstance(count, bool) or not least <= count <= _MOST:
        raise _damaged(path, f"its model's {field} is not a number from {least} to {_MOST}")
    return count


def _normalization(path: Path, value: Any) -> Normalization | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _damaged(path, "its model's normalisation is not an object")
    mean, std = _channels(path, value.get("mean")), _channels(path, value.get("std"))
    if min(std) <= 0:
        raise _damaged(path, "its model's normalisation divides by nothing")
    return Normalization(mean, std)


def _channels(path: Path, value: Any) -> tuple[float, ...]:
    numbers = [n for n in value if isinstance(n, int | float) and math.isfinite(n)] if isinstance(value, list) else []
    if len(numbers) != 3 or len(value) != 3:
        raise _damaged(path, "its model's normalisation is not three numbers each")
    return tuple(map(float, numbers))


def _damaged(path: Path, reason: str) -> UnreadableCheckpointError:
    return UnreadableCheckpointError(f"{path} is damaged: {reason}.", "Fetch or make it again.")
