"""What ``compress attack`` attacks: a checkpoint or an ONNX file, with the data that goes with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from cli.output.console import Output
from cli.stages.inputs import Inputs, dataset_by_record, open_checkpoint
from compressor.core.contracts import Dataset
from compressor.core.errors import ClassMismatchError, UsageError
from compressor.core.types import Normalization
from compressor.system.files import canonical_json, sha256_bytes, sha256_file
from exporters.model_file.preprocessing import Preprocessing


@dataclass(frozen=True)
class AttackTarget:
    """A model to attack.

    Attributes:
        name: of its file, without a folder.
        sha256: of its file.
        model: decides what is broken; on the device.
        dataset: its data.
        recorded: the threat that the file records; empty where it records none.
        surrogate: makes what attacks differentiate, from a few images; ``None`` for the model's own twin.
        digest: what tells the model from others in a state; ``None`` where the file alone does not: options say how a
            checkpoint is read, and its tensors and structure must tell.
    """

    name: str
    sha256: str
    model: nn.Module
    dataset: Dataset
    recorded: Mapping[str, Any]
    surrogate: Callable[[Tensor], nn.Module] | None = None
    digest: str | None = None


def open_attack_target(
    path: Path,
    inputs: Inputs,
    output: Output,
    *,
    device: torch.device,
    provider: str,
    image_size: int | None,
    outside: Normalization | None = None,
    model: str | None,
    normalization: str | None,
    activation: str | None,
) -> AttackTarget:
    """Open a file by its suffix.

    Args:
        path: ``.onnx``, or a checkpoint.
        inputs: device and data.
        output: told what is open.
        device: where to compute.
        provider: what onnxruntime runs on.
        image_size: of a checkpoint that does not record it, or an ONNX file that leaves it open.
        outside: normalisation of an ONNX file that leaves it to others; the rest is of checkpoints.
        model: the architecture.
        normalization: by name or numbers.
        activation: where keys cannot tell.

    Raises:
        UsageError: an option that says nothing about this kind of file.
        ClassMismatchError: an ONNX file and data of unlike classes.
    """
    if path.suffix != ".onnx":
        if outside is not None:
            raise UsageError("--mean and --std are of ONNX files.", "Name it with --normalization.")
        loaded, dataset = open_checkpoint(
            path, inputs, output, model=model, normalization=normalization, activation=activation, image_size=image_size
        )
        threat = loaded.metadata.get("threat", {})
        return AttackTarget(path.name, sha256_file(path), loaded.classifier.to(device), dataset, threat)
    given = {
        "--model": model,
        "--normalization": normalization,
        "--activation": activation,
    }
    if useless := sorted(name for name, value in given.items() if value is not None):
        raise UsageError(
            f"{useless[0]} says nothing about an ONNX file, which knows its own.",
            "Leave it out, or name a checkpoint.",
        )
    return _open_onnx(path, inputs, output, provider, device, Preprocessing(outside, image_size))


def _open_onnx(
    path: Path, inputs: Inputs, output: Output, provider: str, device: torch.device, preprocessing: Preprocessing
) -> AttackTarget:
    """Onnxruntime decides, the importer has the gradients."""
    from exporters.claim.claim import ClaimMismatchError, read_claim
    from exporters.differentiable import FileModel, open_attackable, open_graph
    from exporters.model_file.runtime import open_session
    from exporters.model_file.structure import load_untrusted

    checked = load_untrusted(path)
    session = open_session(
        checked.data, provider=cast(Any, provider), threads=inputs.threads, preprocessing=preprocessing
    )
    try:
        claim = read_claim(checked.model)
    except ClaimMismatchError as error:
        output.warn(f"{path}: {error}.")
        claim = None
    recorded = str(claim.dataset["name"]) if claim else None
    dataset = inputs.open(lambda: dataset_by_record(recorded, session.classes), session.image_shape[1], output)
    if len(dataset.class_names) != session.classes:
        raise ClassMismatchError(
            f"{path} has {session.classes} classes, and {dataset.name} has {len(dataset.class_names)}.",
            "Name the data that it was made for with --data.",
        )
    sha256 = sha256_file(path)
    # The same file with its images presented otherwise is another model.
    told = canonical_json(asdict(preprocessing)).encode()
    digest = sha256 if preprocessing == Preprocessing() else sha256_bytes(sha256.encode() + told)
    return AttackTarget(
        path.name,
        sha256,
        FileModel(session, open_graph(checked.model, session.input_layout)).to(device),
        dataset,
        {"norm": claim.norm, "eps": claim.eps} if claim else {},
        lambda x: open_attackable(session, checked.model, x),
        digest=digest,
    )
