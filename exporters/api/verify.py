"""``exporters.verify``: whether what an ONNX file claims of itself can be refuted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal

from compressor.core.errors import UsageError
from compressor.core.reporting import EventReporter, OnEvent
from compressor.core.types import Norm
from compressor.system.files import AnyPath, as_path
from compressor.system.sizes import parse_size
from exporters.api.arguments import AnyData, as_data, as_eps, file_of
from exporters.model_file.preprocessing import parse_normalization
from exporters.verification.request import Request, Watcher, fresh_seed
from exporters.verification.verdict import Assurance, Verdict

ONNX = "model.onnx"

_FIELDS = tuple(one.name for one in fields(Request))
_FILES = ("evidence_file", "data_dir", "manifest", "public_key", "signature_file")


def verify(
    model: AnyPath,
    *,
    data: AnyData | None = None,
    evidence_file: AnyPath | None = None,
    data_dir: AnyPath | None = None,
    download: bool = False,
    manifest: AnyPath | None = None,
    public_key: AnyPath | None = None,
    signature_file: AnyPath | None = None,
    suite: str | None = None,
    latest: bool = False,
    samples: int | None = None,
    seed: int | None = None,
    min_robust_accuracy: float | None = None,
    min_clean_accuracy: float | None = None,
    require_eps: str | float | None = None,
    require_norm: Norm | None = None,
    min_samples: int | None = None,
    require_assurance: Assurance | None = None,
    eps: str | float | None = None,
    norm: Norm | None = None,
    mean: str | float | Sequence[float] | None = None,
    std: str | float | Sequence[float] | None = None,
    image_size: int | None = None,
    accept_black_box: bool = False,
    time_limit: float | None = None,
    memory_limit: int | str | None = None,
    provider: Literal["cpu", "cuda"] = "cpu",
    threads: int | None = None,
    isolate: bool = True,
    on_progress: OnEvent | None = None,
) -> Verdict:
    """Attack an ONNX file with a fresh seed, to refute what the file claims of its robustness.

    Nothing in the file, nor beside it, is trusted. The arguments have the names and defaults of the options of
    ``compress verify``. Nothing is printed.

    Args:
        model: the ONNX file, an exported artifact, or a run's folder.
        data: images that you hold: a dataset's name such as ``"cifar10"``, an opened dataset, or ``(images, labels)``
            as arrays or tensors: images ``[N, C, H, W]``, uint8 or float in [0, 1], and labels ``[N]``, the positions
            of the right logits. The claim's own dataset binds the evidence to it, another one is a fresh test.
        evidence_file: the evidence, if it does not lie beside the model.
        data_dir: where downloaded datasets lie.
        download: fetch the dataset if it is not there.
        manifest: digests of the claim's dataset, in place of the dataset; ``compress manifest`` writes one.
        public_key: PEM file of a key whose owner must have signed the model.
        signature_file: the signature, if it does not lie beside the model.
        suite: ``"verify"`` (default), ``"replay"`` for digests and replay only, or a suite to run after the verifier's
            own.
        latest: run the newest version of the verifier's suite.
        samples: attack a random subset of this many images.
        seed: of the fresh attacks; from the operating system where it is None.
        min_robust_accuracy: required of the file, 0 to 1, beyond sampling error.
        min_clean_accuracy: likewise.
        require_eps: the least radius that the file must claim.
        require_norm: the norm that the file must claim.
        min_samples: the least number of images.
        require_assurance: ``"self-consistent"``, ``"dataset-bound"`` or ``"signed"``.
        eps: for a file without a claim: the radius of the attacks, such as ``"8/255"`` or ``8/255``.
        norm: for a file without a claim: ``"Linf"`` (default) or ``"L2"``.
        mean: for a file without a claim: what is subtracted from images in [0, 1] before the file sees them.
        std: for a file without a claim: what they are divided by after that.
        image_size: for a file without a claim that leaves it open: the side of its images in pixels.
        accept_black_box: accept a claim even if the file's gradients cannot be computed.
        time_limit: start no new attack batch after this many seconds; the verdict is then undecided.
        memory_limit: memory for examining the file, libraries excluded: bytes, or text such as ``"8GB"``; 0 for no
            limit. None takes 16 GB, or three quarters of the free memory if that is less.
        provider: what onnxruntime runs on.
        threads: CPU threads; None takes all that this process may use.
        isolate: examine the file in a process of its own, whose crash is an undecided verdict; False stays in this one.
        on_progress: called with each :class:`compressor.core.reporting.Event`.

    Returns:
        The verdict: its answer, the checks it rests on, and the exit code of ``compress verify``.

    Raises:
        MissingInputError: there is no such file.
        UsageError: an argument makes no sense.
        CompressError: the caller's own data, manifest or key cannot be used.

    Example:
        >>> from exporters import verify
        >>> verdict = verify("model.onnx", min_robust_accuracy=0.1, seed=0)
        >>> verdict.answer, verdict.exit_code
        ('holds', 0)
        >>> [check.name for check in verdict.checks][:3]
        ['structure', 'digests', 'data']
    """
    # The arguments are the fields of the request, and what is done with it; a test holds the two lists together.
    asked = {name: value for name, value in locals().items() if name in _FIELDS}
    request = as_request(**asked)
    reporter = EventReporter(on_progress)

    def tell(name: str, done: int, total: int) -> None:
        reporter.advance(done, total, name)

    if isolate:
        from exporters.isolation import Listener, verify_isolated

        return verify_isolated(request, listener=Listener(on_progress=tell, on_warning=reporter.warn))
    if request.memory_limit is not None:
        raise UsageError("a memory limit needs a process of its own.", "Leave memory_limit or isolate=False out.")
    from exporters.verification.examination import examine

    return examine(request, Watcher(tell))


def as_request(model: AnyPath, **options: Any) -> Request:
    """One value of what was asked, in whatever form it was given.

    Args:
        model: see :func:`verify`.
        options: likewise, by name.

    Raises:
        UsageError: a path, a dataset, a normalisation or a size that is none.
    """
    asked = options | {name: as_path(options.get(name)) for name in _FILES}
    asked |= {name: as_eps(options.get(name)) for name in ("eps", "require_eps")}
    asked["data"] = as_data(options.get("data"))
    normalization = parse_normalization(options.get("mean"), options.get("std"))
    if normalization is not None:
        asked |= {"mean": normalization.mean, "std": normalization.std}
    if asked["eps"] is not None and options.get("norm") is None:
        asked["norm"] = "Linf"
    if options.get("seed") is None:
        asked["seed"] = fresh_seed()
    if isinstance(limit := options.get("memory_limit"), str):
        asked["memory_limit"] = parse_size(limit)
    return Request(file_of(model, ONNX), **asked)
