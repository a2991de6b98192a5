"""Wires the commands together, and turns every exception into a sentence and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from cli.command_table import LazyGroup
from compressor.core.errors import USAGE, Interrupted

app = typer.Typer(
    name="compress",
    cls=LazyGroup,
    help="Distil a robust image classifier into a small one whose robustness anyone can re-check from its file.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from compressor.version import __version__

        typer.echo(f"compress {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Show the help where no command was given."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(USAGE)


def main(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; never raises, but for a debugger's sake under ``--debug``."""
    debug = "--debug" in arguments
    try:
        code = app(list(arguments), prog_name="compress", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone; point stdout elsewhere, so that the interpreter's last flush stays silent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except (Exception, KeyboardInterrupt) as error:
        from cli.output.console import Output
        from cli.output.failure import describe_error

        output, failure = Output(as_json="--json" in arguments), describe_error(error)
        if debug and failure.code in ("internal", "memory"):
            traceback.print_exc()
        hint = _way_on(arguments) if isinstance(error, Interrupted) else failure.hint
        output.error(failure.code, failure.message, hint, failure.exit_code)
        if isinstance(error, typer.TyperException) and list(arguments[:1]) == ["verify"]:
            from cli.output.verify_reports import report_wrong_usage

            report_wrong_usage(arguments, failure)
        code = failure.exit_code
    return code if isinstance(code, int) else 0


def _way_on(arguments: Sequence[str]) -> str:
    """How a stopped command goes on, where it can."""
    if any(word in ("distill", "train", "demo") for word in arguments[:1]):
        return "What is done is saved; the same command with --resume goes on."
    if any(word.partition("=")[0] == "--state" for word in arguments):
        return "What is done is saved; the same command goes on."
    return ""


def run() -> None:
    """The console script."""
    code = main(sys.argv[1:])
    if "torch.distributed" in sys.modules:  # a command that never needed torch has no group to leave
        from compressor.system.process_group import leave_process_group

        leave_process_group()
    sys.exit(code)
