"""``compress verify``: whether what an ONNX file claims of itself can be refuted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from cli.options import common as options
from cli.options.shared_options import with_options
from cli.output.console import Output

_REPORTS = "Reports: written on every exit, and without a say in the exit code"
_POLICY = "Policies: what is required besides that the claim holds"
_ELSEWHERE = "Files without a claim, with --data and --min-robust-accuracy"


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """What is asked of a verification: the arguments of ``exporters.verify``, by their names."""

    evidence_file: Annotated[
        Path | None, typer.Option("--evidence-file", metavar="FILE", help="Evidence file. Default: beside the model.")
    ] = None
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="SPEC",
            help="Dataset that you hold. The claim's own dataset binds the evidence to it; another one is a fresh "
            "test.",
        ),
    ] = None
    data_dir: options.DataDir = None
    download: options.Download = False
    manifest: Annotated[
        Path | None,
        typer.Option(
            "--manifest", metavar="FILE", help="Manifest of the claim's dataset, in its place: `compress manifest`."
        ),
    ] = None
    public_key: Annotated[
        Path | None,
        typer.Option(
            "--public-key", metavar="FILE", help="PEM file of the key whose owner must have signed the model."
        ),
    ] = None
    signature_file: Annotated[
        Path | None,
        typer.Option("--signature-file", metavar="FILE", help="Signature file. Default: MODEL.sig beside the model."),
    ] = None
    suite: Annotated[
        str | None,
        typer.Option(
            "--suite",
            metavar="NAME",
            help="Attack suite: verify (default), or replay for digests and replay only. Any other runs after verify.",
        ),
    ] = None
    latest: Annotated[bool, typer.Option("--latest", help="Run the newest version of the suite.")] = False
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples",
            metavar="N",
            help="Attack a random subset of N of the robust images; without a claim, N test images.",
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help="Seed of the fresh attacks. Default: random, and printed."),
    ] = None
    min_robust_accuracy: Annotated[
        float | None,
        typer.Option(
            "--min-robust-accuracy", metavar="T", help="Least robust accuracy, 0 to 1.", rich_help_panel=_POLICY
        ),
    ] = None
    min_clean_accuracy: Annotated[
        float | None,
        typer.Option(
            "--min-clean-accuracy", metavar="T", help="Least clean accuracy, 0 to 1.", rich_help_panel=_POLICY
        ),
    ] = None
    require_eps: Annotated[
        str | None,
        typer.Option(
            "--require-eps", metavar="EPS", help="Least radius of the claim, such as 8/255.", rich_help_panel=_POLICY
        ),
    ] = None
    require_norm: Annotated[
        str | None,
        typer.Option("--require-norm", metavar="NORM", help="Norm of the claim: Linf or L2.", rich_help_panel=_POLICY),
    ] = None
    min_samples: Annotated[
        int | None,
        typer.Option("--min-samples", min=1, metavar="N", help="Least number of images.", rich_help_panel=_POLICY),
    ] = None
    require_assurance: Annotated[
        str | None,
        typer.Option(
            "--require-assurance",
            metavar="LEVEL",
            help="Least assurance: self-consistent, dataset-bound or signed.",
            rich_help_panel=_POLICY,
        ),
    ] = None
    eps: Annotated[
        str | None,
        typer.Option("--eps", metavar="EPS", help="Radius of the attacks, such as 8/255.", rich_help_panel=_ELSEWHERE),
    ] = None
    norm: Annotated[
        str | None,
        typer.Option(
            "--norm", metavar="NORM", help="Norm of the attacks: Linf (default) or L2.", rich_help_panel=_ELSEWHERE
        ),
    ] = None
    mean: options.Mean = None
    std: options.Std = None
    image_size: Annotated[
        int | None,
        typer.Option(
            "--image-size",
            min=1,
            metavar="N",
            help="Side of the images in pixels, if the file leaves it open.",
            rich_help_panel=_ELSEWHERE,
        ),
    ] = None
    accept_black_box: Annotated[
        bool,
        typer.Option("--accept-black-box", help="Accept a claim even if the file's gradients cannot be computed."),
    ] = False
    time_limit: Annotated[
        float | None,
        typer.Option(
            "--time-limit",
            metavar="SECONDS",
            help="Start no new attack batch after this many seconds; the verdict is then undecided. The process is "
            "stopped one minute later.",
        ),
    ] = None
    memory_limit: Annotated[
        str | None,
        typer.Option(
            "--memory-limit",
            metavar="SIZE",
            help="Memory limit for examining the file, libraries excluded, such as 8GB. 0 means no limit. Default: "
            "16GB, or three quarters of the free memory.",
        ),
    ] = None
    provider: options.Provider = "cpu"
    threads: options.Threads = None


@with_options(VerifyOptions)
def verify(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The exported file.")],
    shared: VerifyOptions,
    failures: Annotated[
        Path | None,
        typer.Option(
            "--failures",
            metavar="DIR",
            help="Write the broken images as pairs of PNG files.",
            rich_help_panel=_REPORTS,
        ),
    ] = None,
    junit: Annotated[
        Path | None,
        typer.Option(
            "--junit", metavar="FILE", help="JUnit XML: a test case for each check.", rich_help_panel=_REPORTS
        ),
    ] = None,
    summary: Annotated[
        Path | None,
        typer.Option(
            "--summary", metavar="FILE", help="Markdown, for the summary of a CI job.", rich_help_panel=_REPORTS
        ),
    ] = None,
    attestation: Annotated[
        Path | None,
        typer.Option(
            "--attestation",
            metavar="FILE",
            help="in-toto statement (test-result/v0.1), unsigned.",
            rich_help_panel=_REPORTS,
        ),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> int:
    """Check an exported file's claim with fresh attacks: 0 holds, 1 violated, 2 wrong usage, 3 could not decide."""
    from cli.output.verify_reports import ATTESTATION, JUNIT, SUMMARY, reporting, subject_of, write_images

    paths = {JUNIT: junit, SUMMARY: summary, ATTESTATION: attestation}
    # All that can fail happens where the reports hear of it, the imports too.
    subject = subject_of(model, shared.evidence_file)
    with Output(as_json=as_json, quiet=quiet) as output, reporting(paths, subject, output) as reports:
        from cli.output.tables import show_verdict
        from compressor.system.interruption import stop_on_signals
        from exporters.api.verify import as_request
        from exporters.isolation import Listener, verify_isolated
        from exporters.verification import Policies

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
            verdict = verify_isolated(request, listener=listener, with_failures=failures is not None, debug=debug)
        reports.tell_verdict(verdict)
        if failures is not None:
            write_images(verdict, failures, reports, output)
        show_verdict(verdict, output)
        output.json("compress.verify/1", {**verdict.to_json(), "unwritten": reports.unwritten})
    return verdict.exit_code
