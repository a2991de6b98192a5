"""From a checkpoint to the artifact: an ONNX file that computes the same, its claim, and the evidence beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compressor.ascent import ascend
from compressor.augment import to_float
from compressor.checkpoint import LoadedCheckpoint, normalization_name
from compressor.contracts import Dataset
from compressor.losses import cross_entropy
from compressor.modes import module_mode
from compressor.randomness import make_generator
from compressor.types import Threat
from exporters.claim import Claim
from exporters.onnx import Parity, check_parity, export_onnx
from exporters.sealing import Provenance, Sealed, seal
from exporters.verification.request import OnProgress

_PARITY_IMAGES = 64
_PARITY_STEPS = 10


@dataclass(frozen=True)
class Artifact:
    """What an export wrote.

    Attributes:
        path: the ONNX file.
        evidence: the evidence file.
        sealed: both files' bytes, and the claim.
        parity: how close the file's logits are to the checkpoint's.
    """

    path: Path
    evidence: Path
    sealed: Sealed
    parity: Parity

    @property
    def claim(self) -> Claim:
        """What the file claims of itself."""
        return self.sealed.claim


def make_artifact(
    loaded: LoadedCheckpoint,
    dataset: Dataset,
    threat: Threat,
    path: Path,
    *,
    samples: int,
    seed: int = 0,
    suite: str | None = None,
    evidence: Path | None = None,
    threads: int | None = None,
    on_progress: OnProgress | None = None,
) -> Artifact:
    """Export, compare with the checkpoint on natural and attacked images, attack, and write both files.

    Args:
        loaded: the checkpoint.
        dataset: its test split gives the evidence.
        threat: what the claim is about.
        path: the ONNX file to write.
        samples: images in the evidence.
        seed: of the attacks.
        suite: a stronger suite to seal with, besides the verifier's own.
        evidence: where the evidence goes, if not beside the model.
        threads: of onnxruntime.
        on_progress: told what is being done.

    Raises:
        ExportError: the file does not compute what the checkpoint does; nothing is written.
    """
    classifier = loaded.classifier.cpu()
    model = export_onnx(classifier, loaded.spec.image_size)
    parity = check_parity(classifier, model, _parity_images(loaded, dataset, threat))
    sealed = seal(
        model,
        dataset,
        threat,
        samples=samples,
        suite=suite,
        seed=seed,
        provenance=_provenance(loaded),
        threads=threads,
        on_progress=on_progress,
    )
    beside = sealed.write(path, evidence)
    return Artifact(path, beside, sealed, parity)


def _parity_images(loaded: LoadedCheckpoint, dataset: Dataset, threat: Threat) -> torch.Tensor:
    """Natural test images, and the same ones under PGD: a graph may agree on the first and not on the second."""
    test, classifier = dataset.load("test"), loaded.classifier
    x = to_float(torch.from_numpy(np.ascontiguousarray(test.images[:_PARITY_IMAGES])))
    y = torch.from_numpy(test.labels[:_PARITY_IMAGES])
    with module_mode(classifier, training=False):
        x_adv = ascend(
            lambda candidate, index: cross_entropy(classifier(candidate), y[index]),
            x,
            threat,
            make_generator("parity"),
            steps=_PARITY_STEPS,
            step_size=threat.radius / 4,
        )
    return torch.cat([x, x_adv])


def _provenance(loaded: LoadedCheckpoint) -> Provenance:
    metadata: Any = loaded.metadata
    return Provenance(
        recipe=metadata.get("recipe"),
        teacher=metadata.get("parent_sha256"),
        student=loaded.sha256,
        preprocessing={
            "normalization": normalization_name(loaded.spec.normalization),
            "resize": "shorter side, centre crop",
        },
    )
