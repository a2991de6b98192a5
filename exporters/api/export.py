"""``exporters.export``: a checkpoint or a module becomes an ONNX file that says how robust it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from compressor.core.reporting import EventReporter, OnEvent
from compressor.core.types import Norm
from compressor.system.files import AnyPath
from exporters.api.arguments import AnyData

if TYPE_CHECKING:
    from torch import nn

    from exporters.artifact.artifact import Artifact
    from exporters.differentiable.arithmetic import Arithmetic


@overload
def export(source: AnyPath | nn.Module, *, precision: Arithmetic = "fp32", **options: Any) -> Artifact: ...


@overload
def export(source: AnyPath | nn.Module, *, precision: Sequence[Arithmetic], **options: Any) -> tuple[Artifact, ...]: ...


def export(  # type: ignore[misc] # the overloads differ in the precision alone, and leave the rest to this signature
    source: AnyPath | nn.Module,
    *,
    output: AnyPath | None = None,
    precision: Arithmetic | Sequence[Arithmetic] = "fp32",
    opset: int | None = None,
    fixed_batch: int | None = None,
    evidence_file: AnyPath | None = None,
    evidence: Literal["images", "digests", "none"] = "images",
    evidence_samples: int = 256,
    sign_key: AnyPath | None = None,
    force: bool = False,
    data: AnyData | None = None,
    data_dir: AnyPath | None = None,
    download: bool = False,
    image_size: int | None = None,
    model: str | nn.Module | None = None,
    normalization: str | None = None,
    activation: str | None = None,
    eps: str | float | None = None,
    norm: Norm | None = None,
    suite: str | None = None,
    seed: int | None = None,
    threads: int | None = None,
    on_progress: OnEvent | None = None,
) -> Artifact | tuple[Artifact, ...]:
    """Export a classifier to ONNX, attack the file twice, and write a claim into it and the evidence beside it.

    The arguments have the names and defaults of the options of ``compress export``. Nothing is printed. The number of
    torch's threads is set, as evidence depends on it.

    Args:
        source: a checkpoint, a run or its folder (its best checkpoint), or a module in memory that takes float32
            ``[B, 3, H, W]`` in [0, 1], normalises images itself and gives logits ``[B, K]``. Of a module the claim
            names no recipe, teacher or checkpoint, and of a plain module no normalisation.
        output: a folder, or a file that ends in ``.onnx`` for a single precision. The default is ``model.onnx`` beside
            the checkpoint; a module in memory needs an output.
        precision: ``"fp32"``, ``"fp16"`` or ``"int8"``; or several of them, each a file of its own.
        opset: ONNX operator set, 13 to 21 (default: 20).
        fixed_batch: take just this many images at once (default: any number).
        evidence_file: where the evidence goes, for a single precision (default: beside the file).
        evidence: ``"images"``; ``"digests"``, with which only holders of the data can verify; or ``"none"``, which
            attacks nothing and claims nothing.
        evidence_samples: test images that go into the evidence.
        sign_key: PEM file of an elliptic-curve key that signs model and evidence; ``COMPRESS_SIGN_PASSWORD`` opens it.
        force: replace existing files.
        data: the dataset by name, opened, or as arrays or tensors: the pair ``(images, labels)`` of test images, or
            pairs by the names of splits, ``{"train": ..., "test": ...}``; INT8 needs training images. Images are
            ``[N, 3, H, W]``, uint8 or float in [0, 1]. The default is the run's own dataset, else what the checkpoint
            records, else cifar10 or cifar100 by its classes.
        data_dir: where downloaded datasets lie.
        download: fetch the dataset if it is not there.
        image_size: side of the images in pixels (default: what the checkpoint records, else 32).
        model: the checkpoint's architecture, where its keys do not tell; the model's own code then may run.
        normalization: of a foreign checkpoint: ``"none"``, ``"cifar10"``, ``"cifar100"`` or ``"half"``.
        activation: of a foreign checkpoint: ``"relu"`` or ``"silu"``.
        eps: the radius of the claim, such as ``"8/255"`` or ``8/255`` (default: what the checkpoint records, else
            8/255).
        norm: ``"Linf"`` or ``"L2"``, with the same default.
        suite: a stronger suite to attack with, after the verifier's own.
        seed: names every random number.
        threads: CPU threads; None takes all that this process may use.
        on_progress: called with each :class:`compressor.core.reporting.Event`.

    Returns:
        The artifact. Where ``precision`` is a sequence, a tuple of artifacts in its order.

    Raises:
        UsageError: an argument makes no sense, or a file would be replaced.
        ExportError: a file does not compute what the source does, or it cannot be verified.
        CompressError: checkpoint, data or key cannot be used.

    Example:
        >>> from exporters import export
        >>> artifact = export(module, data=(images, labels), eps=4 / 255, evidence_samples=32, output="small.onnx")
        >>> artifact.claim.samples, artifact.claim.eps
        (32, '4/255')
        >>> artifact.evidence.name
        'small.evidence.npz'
    """
    # The options are the fields of the request and its parts.
    asked = {name: value for name, value in locals().items() if name not in ("source", "on_progress")}
    from exporters.api.exporting import Steps, as_export_request, make_file, plan_export

    if isinstance(model, str):
        from compressor.models.user_code import allow_user_code

        allow_user_code(model)  # the caller wrote this name, so its code may run
    plan, steps = plan_export(as_export_request(source, **asked)), Steps(EventReporter(on_progress))
    exporter = plan.open(steps.reporter)
    artifacts = tuple(
        make_file(exporter, name, path, steps, bare=evidence == "none") for name, path in plan.paths.items()
    )
    return artifacts[0] if isinstance(precision, str) else artifacts
