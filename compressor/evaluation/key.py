"""What tells an evaluation from others: a digest of everything that its results depend on."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from compressor.core.types import Threat
from compressor.evaluation.suites import Suite, describe_suite
from compressor.models.classifier import Classifier
from compressor.models.in_memory import digest_tensors
from compressor.system.files import canonical_json, sha256_bytes

# What is computed has changed since version 1, where attacks differentiated the model itself, and since version 2,
# where they stopped when its twin fell.
_NUMERICS = 3


def evaluation_key(
    model_digest: str,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    threat: Threat,
    suite: Suite,
    **settings: Any,
) -> str:
    """A digest of an evaluation's inputs.

    Args:
        model_digest: tells the model from others.
        images: uint8 ``[N, C, H, W]``.
        labels: int64 ``[N]``.
        threat: the ball.
        suite: the attacks; every setting of theirs counts.
        settings: whatever else decides the results, as plain values.

    Returns:
        Hexadecimal SHA-256.
    """
    inputs = {
        "model": model_digest,
        "shape": list(images.shape),
        "images": hashlib.sha256(np.ascontiguousarray(images).data).hexdigest(),
        "labels": hashlib.sha256(np.ascontiguousarray(labels).data).hexdigest(),
        "threat": [threat.norm, threat.eps],
        "suite": describe_suite(suite),
        "numerics": _NUMERICS,
        **settings,
    }
    return sha256_bytes(canonical_json(inputs).encode())


def digest_of_model(model: nn.Module) -> str:
    """SHA-256 of what a model computes with: its printed structure, its specs, every parameter and every buffer.

    Raises:
        ValueError: it has no tensors, and could pass for another.
    """
    # Buffers outside the state dict count as well: a classifier's normalisation is one.
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    if not tensors:
        raise ValueError("a model without tensors needs model_digest, or its state could pass for another's")
    specs = [module.spec for module in model.modules() if isinstance(module, Classifier)]
    return digest_tensors(f"{model}\x1f{specs}", tensors.items())
