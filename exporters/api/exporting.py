"""Carries an export out: checks the request before any work, opens the model, makes the files and verifies them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from compressor.api.inputs import Inputs, default_threat
from compressor.core.errors import CompressError, UsageError
from compressor.core.reporting import Reporter
from compressor.data.datasets import watch_decoding
from compressor.system.devices import set_threads
from compressor.system.files import sha256_bytes
from exporters.api.source import open_source
from exporters.artifact.artifact import Artifact, Exporter, ExportSettings, describe_claim, describe_file
from exporters.artifact.latency import Latency, measure_latency
from exporters.artifact.mobile import MobileUsability, mobile_usability
from exporters.claim.claim import PRECISIONS, Claim, ClaimMismatchError, model_digest, read_claim
from exporters.claim.evidence import Evidence, evidence_path, parse_evidence, read_evidence_bytes
from exporters.claim.signing import signature_path
from exporters.differentiable.arithmetic import Arithmetic
from exporters.model_file.opset import OPSET, check_opset, opset_of
from exporters.model_file.structure import declared_layout_of, load_untrusted
from exporters.verification import Request, Verdict, Watcher, examine
from exporters.writing.fixed_batch import check_batch

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

EVIDENCE = ("images", "digests", "none")


@dataclass(frozen=True)
class ExportRequest:
    """What is asked of an export; see :func:`exporters.api.export.export`.

    Attributes:
        source: a checkpoint, or a module in memory.
        inputs: where the evidence's images, and those for calibration, come from.
        image_size: side of the images in pixels; None for what the source records.
        output: a folder, or a file for a single precision; None for the checkpoint's folder.
        precision: the precisions, each a file of its own.
        opset: of the files; None for the default.
        fixed_batch: how many images the files take at once; None for any number.
        evidence_file: where the evidence goes, if not beside the model.
        evidence: ``images``, ``digests`` or ``none``.
        evidence_samples: test images that go into the evidence.
        sign_key: a PEM file that signs.
        force: whether existing files are replaced.
        model: the checkpoint's architecture.
        normalization: the checkpoint's, by name.
        activation: the checkpoint's.
        eps: the radius; None for the recorded one.
        norm: likewise.
        suite: a stronger suite to seal with.
        seed: of the attacks, of calibration and of the search.
    """

    source: Path | nn.Module
    inputs: Inputs
    image_size: int | None = None
    output: Path | None = None
    precision: tuple[str, ...] = ("fp32",)
    opset: int | None = None
    fixed_batch: int | None = None
    evidence_file: Path | None = None
    evidence: str = "images"
    evidence_samples: int = 256
    sign_key: Path | None = None
    force: bool = False
    model: str | nn.Module | None = None
    normalization: str | None = None
    activation: str | None = None
    eps: str | None = None
    norm: str | None = None
    suite: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class ExportPlan:
    """An export that nothing stands in the way of.

    Attributes:
        request: what is asked.
        paths: precision to file.
        key: signs; None leaves the files unsigned.
    """

    request: ExportRequest
    paths: Mapping[Arithmetic, Path]
    key: EllipticCurvePrivateKey | None

    def open(self, reporter: Reporter) -> Exporter:
        """Read the model and open its data.

        Raises:
            CompressError: one of them cannot be used, or they do not fit each other.
        """
        request = self.request
        loaded, dataset = open_source(
            request.source,
            request.inputs,
            reporter,
            model=request.model,
            normalization=request.normalization,
            activation=request.activation,
            image_size=request.image_size,
        )
        settings = ExportSettings(
            samples=request.evidence_samples,
            seed=request.seed or 0,
            suite=request.suite,
            threads=set_threads(request.inputs.threads),
            with_images=request.evidence == "images",
            key=self.key,
            opset=OPSET if request.opset is None else request.opset,
            fixed_batch=request.fixed_batch,
        )
        return Exporter(
            loaded, dataset, default_threat(loaded.metadata.get("threat", {}), request.eps, request.norm), settings
        )


def plan_export(request: ExportRequest) -> ExportPlan:
    """Refuse what makes no sense, or stands in the way, before any work.

    Raises:
        UsageError: an option makes no sense, or a file would be replaced.
        MissingInputError: there is no such key.
    """
    paths = _paths_of(request)
    if request.evidence not in EVIDENCE:
        raise UsageError(f"the evidence {request.evidence!r} is not known.", "Use images, digests or none.")
    if request.evidence == "none" and (request.sign_key or request.evidence_file):
        raise UsageError("without evidence there is nothing to sign and no evidence file.", "Use --evidence digests.")
    if request.opset is not None:
        check_opset(request.opset)
    if request.fixed_batch is not None:
        check_batch(request.fixed_batch)
    key = _signing_key(request.sign_key)
    if request.evidence_file is not None and len(paths) > 1:
        raise UsageError("--evidence-file names one file, and several are exported.", "Leave it out.")
    _refuse_to_replace(paths.values(), request.evidence_file, force=request.force)
    return ExportPlan(request, paths, key)


def _paths_of(request: ExportRequest) -> Mapping[Arithmetic, Path]:
    """Where each precision goes: ``model.onnx``, ``model-fp16.onnx``, ``model-int8.onnx`` in a folder, or one file."""
    wanted, output = tuple(dict.fromkeys(request.precision)), request.output
    for name in wanted:
        if name not in PRECISIONS:
            raise UsageError(f"the precision {name!r} is not known.", f"Use one of {', '.join(PRECISIONS)}.")
    names = cast(tuple[Arithmetic, ...], wanted)
    if output is not None and output.suffix == ".onnx" and not output.is_dir():
        if len(names) > 1:
            raise UsageError(
                f"{output} is one file, and {len(names)} precisions were asked for.", "Give --output a folder."
            )
        return {names[0]: output}
    if output is not None:
        folder = output
    elif isinstance(request.source, Path):
        folder = request.source.parent
    else:
        raise UsageError("a module in memory has no folder.", "Say with output where the file goes.")
    return {name: folder / ("model.onnx" if name == "fp32" else f"model-{name}.onnx") for name in names}


def _refuse_to_replace(models: Iterable[Path], evidence: Path | None, *, force: bool) -> None:
    """Stop where a file is in the way of an export, or two of its own would be one."""
    for model in models:
        if (obstacle := _no_folder(model)) is not None:
            raise UsageError(f"{obstacle} is not a folder.", "Give --output a file that ends in .onnx, or a folder.")
        files = (model, evidence or evidence_path(model), signature_path(model))
        if len({file.resolve() for file in files}) < len(files):
            raise UsageError(
                f"{evidence} is the name of another file of this export.", "Choose another --evidence-file."
            )
        # A signature that lies there would be of another file, and is not for us to take away unasked.
        for file in files:
            if file.exists() and not force:
                raise UsageError(f"{file} exists already.", "Add --force to replace it, or choose another name.")


def _no_folder(model: Path) -> Path | None:
    """The nearest of a file's folders that is there, if it is none."""
    nearest = next(folder for folder in model.parents if folder.exists())
    return None if nearest.is_dir() else nearest


def _signing_key(path: Path | None) -> EllipticCurvePrivateKey | None:
    """The key that signs, opened with the password of the environment variable ``COMPRESS_SIGN_PASSWORD`` if any."""
    if path is None:
        return None
    from exporters.claim.signing import read_private_key

    return read_private_key(path, os.environ.get("COMPRESS_SIGN_PASSWORD"))


# Making files.


def make_file(
    exporter: Exporter,
    precision: Arithmetic,
    path: Path,
    *,
    evidence: Path | None = None,
    bare: bool = False,
    reporter: Reporter,
    check_stop: Callable[[], None] = lambda: None,
) -> Artifact:
    """Export, attack and seal one file; ``bare`` writes it without a claim, and attacks nothing.

    Args:
        exporter: the model, its data and the settings.
        precision: of the file.
        path: the file to write.
        evidence: where the evidence goes, if not beside the file.
        bare: whether the file makes no claim.
        reporter: told of progress.
        check_stop: called between batches; what it raises ends the work.

    Raises:
        CompressError: see :meth:`exporters.artifact.artifact.Exporter.make`.
    """
    name = exporter.loaded.spec.name
    if bare:
        reporter.phase(f"Exporting {name} in {precision}, without claim or evidence")
        return exporter.write_bare(precision, path)
    reporter.phase(f"Exporting {name} in {precision} and attacking the file twice: {exporter.threat}")

    def on_progress(attack: str, done: int, total: int) -> None:
        reporter.advance(done, total, attack)
        check_stop()

    with watch_decoding(lambda done, total: on_progress("decoding pictures", done, total)):
        exporter.dataset.load("test")
    return exporter.make(precision, path, evidence, on_progress)


def verify_file(
    exporter: Exporter,
    path: Path,
    *,
    evidence: Path | None = None,
    reporter: Reporter,
    check_stop: Callable[[], None] = lambda: None,
) -> Verdict:
    """Verify in this process a file that was just exported, as its recipient will.

    Args:
        exporter: what the file was made with.
        path: the file.
        evidence: the evidence, if not beside the file.
        reporter: told of progress.
        check_stop: called between batches.
    """

    def on_progress(attack: str, done: int, total: int) -> None:
        reporter.advance(done, total, attack)
        check_stop()

    reporter.phase(f"Verifying {path} with fresh attacks")
    settings = exporter.settings
    # Evidence without images can be verified by those alone who hold the data.
    data = None if settings.with_images else exporter.dataset
    request = Request(path, evidence_file=evidence, data=data, threads=settings.threads)
    return examine(request, Watcher(on_progress))


def is_exported(path: Path, evidence: Path | None, precision: Arithmetic, exporter: Exporter) -> bool:
    """Whether ``path`` holds what the workshop would make, undamaged, with its evidence beside it."""
    if exporter.settings.key is not None or not path.is_file():
        return False
    try:
        model = load_untrusted(path).model
        claim = read_claim(model)
        data = read_evidence_bytes(evidence or evidence_path(path))
        has_images = isinstance(parse_evidence(data), Evidence)
    except (CompressError, ClaimMismatchError):
        return False  # what is damaged or lacking is made anew
    return (
        claim is not None
        and _is_claim_of(claim, precision, exporter)
        and has_images == exporter.settings.with_images
        and (opset_of(model), declared_layout_of(model).batch)
        == (exporter.settings.opset, exporter.settings.fixed_batch)
        and claim.model == model_digest(model)
        and claim.evidence == sha256_bytes(data)
    )


def _is_claim_of(claim: Claim, precision: Arithmetic, exporter: Exporter) -> bool:
    return (
        claim.student is not None
        and claim.student == exporter.loaded.sha256
        and claim.precision["name"] == precision
        and claim.threat == exporter.threat
        and claim.samples in (exporter.settings.samples, claim.dataset["total"])
    )


@dataclass(frozen=True, eq=False)
class ExportedFile:
    """One file that lies there, and what a verification of it found.

    Attributes:
        path: the file.
        precision: of it.
        settings: how it was made, or would have been where it lay there.
        verdict: of the verification.
        artifact: how it was made; None where it lay there already.
    """

    path: Path
    precision: Arithmetic
    settings: ExportSettings
    verdict: Verdict
    artifact: Artifact | None

    def to_json(self) -> dict[str, Any]:
        """One entry of ``exports`` in the JSON of ``export``."""
        claim, artifact = self.verdict.claim or {}, self.artifact
        search = artifact.converted.search if artifact else None
        return (
            describe_file(self.path, self.precision, self.settings)
            | describe_claim(self.settings, claim)
            | {
                "signature": str(artifact.signature) if artifact and artifact.signature else None,
                "verdict": self.verdict.answer,
                "search": search.to_json() if search else None,
            }
        )


def export_and_verify(
    exporter: Exporter,
    precision: Arithmetic,
    path: Path,
    *,
    evidence: Path | None = None,
    force: bool = False,
    reporter: Reporter,
    check_stop: Callable[[], None] = lambda: None,
    on_artifact: Callable[[Artifact], None] = lambda artifact: None,
    on_verdict: Callable[[Verdict], None] = lambda verdict: None,
) -> ExportedFile:
    """Make a file, unless it lies there undamaged, and verify it as its recipient will.

    Args:
        exporter: the model, its data and the settings.
        precision: of the file.
        path: the file.
        evidence: the evidence, if not beside the file.
        force: make it anew in any case, as is done where it must be signed.
        reporter: told of progress.
        check_stop: called between batches; what it raises ends the work.
        on_artifact: called with what was made, before it is verified.
        on_verdict: called with the verdict.
    """
    artifact = None
    if not force and is_exported(path, evidence, precision, exporter):
        reporter.note(f"exported already: {path}")
    else:
        artifact = make_file(exporter, precision, path, evidence=evidence, reporter=reporter, check_stop=check_stop)
        on_artifact(artifact)
    verdict = verify_file(exporter, path, evidence=evidence, reporter=reporter, check_stop=check_stop)
    on_verdict(verdict)
    return ExportedFile(path, precision, exporter.settings, verdict, artifact)


# Several files side by side.


@dataclass(frozen=True, eq=False)
class Compared:
    """One of several exported files, with what can be compared.

    Attributes:
        exported: the file.
        latency: batch size to time.
        mobile: what phones' accelerators could take of it.
        robust_loss: the attacked accuracy that is lacking against fp32; None where either is not known.
    """

    exported: ExportedFile
    latency: Mapping[int, Latency]
    mobile: MobileUsability
    robust_loss: float | None

    def to_json(self) -> dict[str, Any]:
        """The entry of :meth:`ExportedFile.to_json` with latencies in milliseconds, the loss, and ``mobile``."""
        times = {str(size): 1000 * time.seconds for size, time in self.latency.items()}
        compared = {"latency_ms": times, "robust_loss": self.robust_loss}
        return self.exported.to_json() | compared | self.mobile.to_json()


def compare_exports(exported: Sequence[ExportedFile], *, threads: int | None) -> tuple[Compared, ...]:
    """Time files in turns, ask what phones could take of them, and subtract attacked accuracies from that of fp32.

    Args:
        exported: at least one file; each precision at most once.
        threads: of onnxruntime.
    """
    files: dict[str, bytes] = {done.precision: done.path.read_bytes() for done in exported}
    latency = measure_latency(files, threads=threads)
    robust = {done.precision: done.to_json()["robust_accuracy"] for done in exported}
    base = robust.get("fp32")

    def loss(precision: Arithmetic) -> float | None:
        known = base is not None and robust[precision] is not None
        return base - robust[precision] if known else None

    return tuple(
        Compared(done, latency[done.precision], mobile_usability(files[done.precision]), loss(done.precision))
        for done in exported
    )
