"""``compress verify``: whether what an ONNX file claims of itself can be refuted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from cli.options import common as options
from cli.options.declaring import option, switch
from cli.options.shared_options import OutputOptions, with_options

_REPORTS = "Reports: written on every exit, and without a say in the exit code"
_POLICY = "Policies: what is required besides that the claim holds"
_ELSEWHERE = "Files without a claim, with --data and --min-robust-accuracy"


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """What is asked of a verification: the arguments of ``exporters.verify``, by their names."""

    evidence_file: Annotated[Path | None, option("FILE", "Evidence file. Default: beside the model.")] = None
    data: Annotated[
        str | None,
        option(
            "SPEC",
            "Dataset that you hold. The claim's own dataset binds the evidence to it; another one is a fresh test.",
        ),
    ] = None
    data_dir: options.DataDir = None
    download: options.Download = False
    manifest: Annotated[
        Path | None, option("FILE", "Manifest of the claim's dataset, in its place: `compress manifest`.")
    ] = None
    public_key: Annotated[
        Path | None, option("FILE", "PEM file of the key whose owner must have signed the model.")
    ] = None
    signature_file: Annotated[Path | None, option("FILE", "Signature file. Default: MODEL.sig beside the model.")] = (
        None
    )
    suite: Annotated[
        str | None,
        option(
            "NAME",
            "Attack suite: verify (default), or replay for digests and replay only. Any other runs after verify.",
        ),
    ] = None
    latest: Annotated[bool, switch("--latest", "Run the newest version of the suite.")] = False
    samples: Annotated[
        int | None, option("N", "Attack a random subset of N of the robust images; without a claim, N test images.")
    ] = None
    seed: Annotated[int | None, option("N", "Seed of the fresh attacks. Default: random, and printed.")] = None
    min_robust_accuracy: Annotated[float | None, option("T", "Least robust accuracy, 0 to 1.", _POLICY)] = None
    min_clean_accuracy: Annotated[float | None, option("T", "Least clean accuracy, 0 to 1.", _POLICY)] = None
    require_eps: Annotated[str | None, option("EPS", "Least radius of the claim, such as 8/255.", _POLICY)] = None
    require_norm: Annotated[str | None, option("NORM", "Norm of the claim: Linf or L2.", _POLICY)] = None
    min_samples: Annotated[int | None, option("N", "Least number of images.", _POLICY, min=1)] = None
    require_assurance: Annotated[
        str | None, option("LEVEL", "Least assurance: self-consistent, dataset-bound or signed.", _POLICY)
    ] = None
    eps: Annotated[str | None, option("EPS", "Radius of the attacks, such as 8/255.", _ELSEWHERE)] = None
    norm: Annotated[str | None, option("NORM", "Norm of the attacks: Linf (default) or L2.", _ELSEWHERE)] = None
    mean: options.Mean = None
    std: options.Std = None
    image_size: Annotated[
        int | None, option("N", "Side of the images in pixels, if the file leaves it open.", _ELSEWHERE, min=1)
    ] = None
    accept_black_box: Annotated[
        bool, switch("--accept-black-box", "Accept a claim even if the file's gradients cannot be computed.")
    ] = False
    time_limit: Annotated[
        float | None,
        option(
            "SECONDS",
            "Start no new attack batch after this many seconds; the verdict is then undecided. The process is "
            "stopped one minute later.",
        ),
    ] = None
    memory_limit: Annotated[
        str | None,
        option(
            "SIZE",
            "Memory limit for examining the file, libraries excluded, such as 8GB. 0 means no limit. Default: "
            "16GB, or three quarters of the free memory.",
        ),
    ] = None
    provider: options.Provider = "cpu"
    threads: options.Threads = None


@with_options(VerifyOptions)
def verify(
    printing: OutputOptions,
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The exported file.")],
    shared: VerifyOptions,
    failures: Annotated[Path | None, option("DIR", "Write the broken images as pairs of PNG files.", _REPORTS)] = None,
    junit: Annotated[Path | None, option("FILE", "JUnit XML: a test case for each check.", _REPORTS)] = None,
    summary: Annotated[Path | None, option("FILE", "Markdown, for the summary of a CI job.", _REPORTS)] = None,
    attestation: Annotated[
        Path | None, option("FILE", "in-toto statement (test-result/v0.1), unsigned.", _REPORTS)
    ] = None,
) -> int:
    """Check an exported file's claim with fresh attacks: 0 holds, 1 violated, 2 wrong usage, 3 could not decide."""
    from cli.output.verify_reports import ATTESTATION, JUNIT, SUMMARY, reporting, subject_of, write_images

    paths = {JUNIT: junit, SUMMARY: summary, ATTESTATION: attestation}
    # All that can fail happens where the reports hear of it, the imports too.
    subject = subject_of(model, shared.evidence_file)
    with printing.open() as output, reporting(paths, subject, output) as reports:
        from cli.output.tables import show_verdict
        from compressor.system.interruption import stop_on_signals
        from exporters.api.verify import as_request
        from exporters.isolation import Listener, verify_isolated
        from exporters.verification.policies import Policies

        asked = asdict(shared)
        reports.require(Policies.of(asked))
        request = as_request(model, **asked)
        with stop_on_signals() as stop:
            output.phase(f"Verifying {model}")
            listener = Listener(
                on_progress=lambda name, done, total: output.advance(done, total, name),
                on_warning=output.warn,
                check_stop=stop.raise_if_set,
            )
            verdict = verify_isolated(
                request, listener=listener, with_failures=failures is not None, debug=printing.debug
            )
        reports.tell_verdict(verdict)
        if failures is not None:
            write_images(verdict, failures, reports, output)
        show_verdict(verdict, output)
        output.json("compress.verify/1", {**verdict.to_json(), "unwritten": reports.unwritten})
    return verdict.exit_code
