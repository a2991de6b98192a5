"""A file as what an attack is run on: an ONNX file, or a checkpoint, by its suffix."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch

from compressor.api.inputs import Inputs, dataset_by_record
from compressor.api.targets import AttackTarget, open_attack_target
from compressor.core.errors import ClassMismatchError, UsageError
from compressor.core.reporting import Reporter, SilentReporter
from compressor.system.files import canonical_json, sha256_bytes, sha256_file
from compressor.training.teacher_file import TeacherRequest
from exporters.claim.claim import ClaimMismatchError, read_claim
from exporters.differentiable.attackable import open_attackable
from exporters.differentiable.file_graph import open_graph
from exporters.differentiable.file_model import FileModel
from exporters.model_file.preprocessing import Preprocessing
from exporters.model_file.runtime import Provider, open_session
from exporters.model_file.structure import load_untrusted


def open_target_by_suffix(
    asked: TeacherRequest,
    inputs: Inputs,
    reporter: Reporter,
    *,
    device: torch.device,
    provider: str,
    preprocessing: Preprocessing,
) -> AttackTarget:
    """Open a file by its suffix.

    Args:
        asked: the path of an ``.onnx`` file, or of a checkpoint with what it may not tell.
        inputs: device and data.
        reporter: told what is open.
        device: where to compute.
        provider: what onnxruntime runs on.
        preprocessing: what an ONNX file leaves to others; of a checkpoint the image size, where it does not record it.

    Raises:
        UsageError: an option that says nothing about this kind of file.
        ClassMismatchError: an ONNX file and data of unlike classes.
    """
    path = asked.source
    assert isinstance(path, Path)  # a module has no suffix
    if path.suffix != ".onnx":
        if preprocessing.normalization is not None:
            raise UsageError("--mean and --std are of ONNX files.", "Name it with --normalization.")
        return open_attack_target(
            asked, inputs, reporter, device=device, image_size=preprocessing.image_size,
        )  # fmt: skip
    given = {"--model": asked.model, "--normalization": asked.normalization, "--activation": asked.activation}
    if useless := sorted(name for name, value in given.items() if value is not None):
        raise UsageError(
            f"{useless[0]} says nothing about an ONNX file, which knows its own.",
            "Leave it out, or name a checkpoint.",
        )
    return open_onnx_target(path, inputs, reporter, provider=provider, device=device, preprocessing=preprocessing)


def open_onnx_target(
    path: str | os.PathLike[str],
    inputs: Inputs = Inputs(),  # noqa: B008 - a frozen value
    reporter: Reporter = SilentReporter(),  # noqa: B008 - it has no state
    *,
    provider: str = "cpu",
    device: torch.device | str = "cpu",
    preprocessing: Preprocessing = Preprocessing(),  # noqa: B008 - a frozen value
) -> AttackTarget:
    """Open an ONNX file for ``compressor.attack``: onnxruntime decides, the importer has the gradients.

    Args:
        path: the file.
        inputs: device and data.
        reporter: told what is open.
        provider: what onnxruntime runs on.
        device: where the gradients are computed.
        preprocessing: what is done to its images outside the file.

    Raises:
        CompressError: the file cannot be read. ClassMismatchError: the data has other classes.
    """
    path = Path(path)
    checked = load_untrusted(path)
    session = open_session(
        checked.data, provider=cast(Provider, provider), threads=inputs.threads, preprocessing=preprocessing
    )
    try:
        claim = read_claim(checked.model)
    except ClaimMismatchError as error:
        reporter.warn(f"{path}: {error}.")
        claim = None
    recorded = str(claim.dataset["name"]) if claim else None
    dataset = inputs.open(lambda: dataset_by_record(recorded, session.classes), session.image_shape[1], reporter)
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
