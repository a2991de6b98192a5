"""What a command shows along the whole way, from training to the verdict."""

from __future__ import annotations

from cli.output.console import Output
from cli.output.tables import show_artifact, show_record, show_verdict
from compressor.system.interruption import StopRequest
from exporters.api.exporting import Steps


def steps_of(output: Output, stop: StopRequest) -> Steps:
    """What a command tells, asks and does along the whole way."""
    return Steps(
        reporter=output,
        stop=stop,
        on_record=lambda run, record: show_record(run, record, output),
        on_artifact=lambda artifact: show_artifact(artifact, output),
        on_verdict=lambda verdict: show_verdict(verdict, output),
    )
