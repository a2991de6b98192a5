"""Carries an export out: checks the request before any work, opens the model, makes the files and verifies them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from compressor.api.inputs import Inputs, default_threat, open_checkpoint
from compressor.core.errors import CompressError, UsageError
from compressor.core.reporting import Reporter, SilentReporter
from compressor.core.types import DatasetSpec
from compressor.data.datasets import watch_decoding
from compressor.runs.run import Run
from compressor.system.devices import set_threads
from compressor.system.files import AnyPath, as_path, sha256_bytes
from compressor.system.interruption import StopRequest
from compressor.training.teacher_file import TeacherRequest
from exporters.api.arguments import BEST, as_eps, file_of
from exporters.artifact.artifact import Artifact, Exporter, describe_file
from exporters.artifact.latency import Latency, measure_latency
from exporters.artifact.mobile import MobileUsability, mobile_usability
from exporters.artifact.sealing import ExportSettings
from exporters.claim.claim import PRECISIONS, Claim, ClaimMismatchError, model_digest, read_claim
from exporters.claim.evidence import Evidence, evidence_path, parse_evidence, read_evidence_bytes
from exporters.claim.signing import signature_path
from exporters.differentiable.arithmetic import Arithmetic
from exporters.model_file.opset import OPSET, opset_of
from exporters.model_file.structure import declared_layout_of, load_untrusted
from exporters.verification.examination import examine
from exporters.verification.request import Request, Watcher
from exporters.verification.verdict import Verdict

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from compressor.evaluation.record import EvaluationRecord
    from compressor.runs.run import Run

EVIDENCE = ("images", "digests", "none")


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """What is asked of an export.

    ``source`` is the model with what its file may not tell, and ``inputs`` says where the images of the evidence and
    those for calibration come from. Each other field is an argument of :func:`exporters.api.export.export`.
    """

    source: TeacherRequest
    inputs: Inputs
    image_size: int | None
    output: Path | None
    precision: tuple[str, ...]
    opset: int | None
    fixed_batch: int | None
    evidence_file: Path | None
    evidence: str
    evidence_samples: int
    sign_key: Path | None
    force: bool
    eps: str | None
    norm: str | None
    suite: str | None
    seed: int | None


def as_export_request(source: AnyPath | nn.Module, **options: Any) -> ExportRequest:
    """One value of what was asked, in whatever form it was given.

    Args:
        source: see :func:`exporters.api.export.export`.
        options: all its other arguments, by name.

    Raises:
        UsageError: a path or a radius that is none.
    """
    asked = {one.name: options[one.name] for one in fields(ExportRequest) if one.name not in ("source", "inputs")}
    asked |= {name: as_path(options[name]) for name in ("output", "evidence_file", "sign_key")}
    asked["eps"] = as_eps(options["eps"])
    precision, data = options["precision"] or "fp32", options["data"]
    if data is None and isinstance(source, Run):
        data = source.dataset
    asked["precision"] = (precision,) if isinstance(precision, str) else tuple(precision)
    model = source if isinstance(source, nn.Module) else file_of(source, BEST)
    return ExportRequest(
        source=TeacherRequest(model, options["model"], options["normalization"], options["activation"]),
        inputs=Inputs(
            str(data) if isinstance(data, DatasetSpec) else data,
            as_path(options["data_dir"]),
            options["download"],
            "cpu",
            options["threads"],
        ),
        **asked,
    )


@dataclass(frozen=True)
class Steps:
    """What is told and asked along the way.

    Attributes:
        reporter: told of progress.
        stop: asked after every step; what it raises ends the work.
        on_record: called with each checkpoint's evaluation and its run as soon as it is there.
        on_artifact: called with what was exported, before it is verified.
        on_verdict: called with the verdict.
    """

    reporter: Reporter = SilentReporter()  # noqa: RUF009 - it has no state
    stop: StopRequest = field(default_factory=StopRequest)
    on_record: Callable[[Run, EvaluationRecord], None] = lambda run, record: None
    on_artifact: Callable[[Artifact], None] = lambda artifact: None
    on_verdict: Callable[[Verdict], None] = lambda verdict: None

    def on_progress(self, attack: str, done: int, total: int) -> None:
        """Tell of progress, and end the work where that is asked for."""
        self.reporter.advance(done, total, attack)
        self.stop.raise_if_set()


@dataclass(frozen=True)
class ExportPlan:
    """An export that nothing stands in the way of.

    Attributes:
        request: what is asked.
        paths: precision to file.
        settings: what all files share.
    """

    request: ExportRequest
    paths: Mapping[Arithmetic, Path]
    settings: ExportSettings

    def open(self, reporter: Reporter) -> Exporter:
        """Read the model and open its data.

        Raises:
            CompressError: one of them cannot be used, or they do not fit each other.
        """
        request, source = self.request, self.request.source
        loaded, dataset = open_checkpoint(source, request.inputs, reporter, image_size=request.image_size)
        threat = default_threat(loaded.metadata.get("threat", {}), request.eps, request.norm)
        settings = replace(self.settings, threads=set_threads(request.inputs.threads))
        module = source.source if isinstance(source.source, nn.Module) else None
        return Exporter(loaded, dataset, threat, settings, module)


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
    settings = ExportSettings(
        samples=request.evidence_samples,
        seed=request.seed or 0,
        suite=request.suite,
        with_images=request.evidence == "images",
        key=_signing_key(request.sign_key),
        opset=OPSET if request.opset is None else request.opset,
        fixed_batch=request.fixed_batch,
        evidence_file=request.evidence_file,
    )
    if request.evidence_file is not None and len(paths) > 1:
        raise UsageError("--evidence-file names one file, and several are exported.", "Leave it out.")
    _refuse_to_replace(paths.values(), request.evidence_file, force=request.force)
    return ExportPlan(request, paths, settings)


def _paths_of(request: ExportRequest) -> Mapping[Arithmetic, Path]:
    """Where each precision goes: ``model.onnx``, ``model-fp16.onnx``, ``model-int8.onnx`` in a folder, or one file."""
    wanted, output, source = tuple(dict.fromkeys(request.precision)), request.output, request.source.source
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
    elif isinstance(source, Path):
        folder = source.parent
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


def make_file(exporter: Exporter, precision: Arithmetic, path: Path, steps: Steps, *, bare: bool = False) -> Artifact:
    """Export, attack and seal one file; ``bare`` writes it without a claim, and attacks nothing.

    Args:
        exporter: the model, its data and the settings.
        precision: of the file.
        path: the file to write.
        steps: what is told and asked.
        bare: whether the file makes no claim.

    Raises:
        CompressError: see :meth:`exporters.artifact.artifact.Exporter.make`.
    """
    name, reporter = exporter.loaded.spec.name, steps.reporter
    if bare:
        reporter.phase(f"Exporting {name} in {precision}, without claim or evidence")
        return exporter.write_bare(precision, path)
    reporter.phase(f"Exporting {name} in {precision} and attacking the file twice: {exporter.threat}")
    with watch_decoding(lambda done, total: steps.on_progress("decoding pictures", done, total)):
        exporter.dataset.load("test")
    return exporter.make(precision, path, steps.on_progress)


def _verify_file(exporter: Exporter, path: Path, steps: Steps) -> Verdict:
    """Verify in this process a file that was just exported, as its recipient will."""
    steps.reporter.phase(f"Verifying {path} with fresh attacks")
    settings = exporter.settings
    # Evidence without images can be verified by those alone who hold the data.
    data = None if settings.with_images else exporter.dataset
    request = Request(path, evidence_file=settings.evidence_file, data=data, threads=settings.threads)
    return examine(request, Watcher(steps.on_progress))


def is_exported(path: Path, precision: Arithmetic, exporter: Exporter) -> bool:
    """Whether ``path`` holds what the exporter would make, undamaged, with its evidence beside it."""
    if exporter.settings.key is not None or not path.is_file():
        return False
    try:
        model = load_untrusted(path).model
        claim = read_claim(model)
        data = read_evidence_bytes(exporter.settings.evidence_file or evidence_path(path))
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
        entry = describe_file(self.path, self.precision, self.settings, self.verdict.claim or {})
        made = {} if self.artifact is None else self.artifact.describe_making()
        return entry | made | {"verdict": self.verdict.answer}


def export_and_verify(
    exporter: Exporter, precision: Arithmetic, path: Path, steps: Steps, *, force: bool = False
) -> ExportedFile:
    """Make a file as :func:`make_file` does, unless it lies there undamaged, and verify it as its recipient will.

    With ``force`` it is made anew in any case, as is done where it must be signed.
    """
    artifact = None
    if not force and is_exported(path, precision, exporter):
        steps.reporter.note(f"exported already: {path}")
    else:
        artifact = make_file(exporter, precision, path, steps)
        steps.on_artifact(artifact)
    verdict = _verify_file(exporter, path, steps)
    steps.on_verdict(verdict)
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
