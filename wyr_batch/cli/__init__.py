"""The command line: `wyr-batch COMMAND`. Commands are imported when they are called, so that --help is instant."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Sequence
from typing import Any

import click

from wyr_batch._version import __version__
from wyr_batch.checks.files import shown_path
from wyr_batch.cli.params import complete_options, is_debugging
from wyr_batch.cli.streams import leave_streams, open_standard_streams, print_error
from wyr_batch.errors import WyrError

# Command -> module with a click command named `command`, and its line in --help.
COMMANDS = {
    "run": ("wyr_batch.cli.run", "Explain reads: which part of each made the call."),
    "export": ("wyr_batch.cli.export", "Fuse Explainer and Explanandum into one proven ONNX bundle."),
    "train": ("wyr_batch.cli.train", "Prepare labelled reads, train Explanandum and Explainer."),
    "evaluate": ("wyr_batch.cli.evaluate", "Measure how well masks keep, and their complements lose, the call."),
    "report": ("wyr_batch.cli.masks.report", "Show what is in masks as one HTML page."),
    "view": ("wyr_batch.cli.masks.view", "Show reads in the terminal, coloured by their masks."),
    "convert": ("wyr_batch.cli.masks.convert", "Write masks as BED, TSV, FASTA, a Kraken report and more."),
    "info": ("wyr_batch.cli.info", "Show what a bundle holds, or how masks were made."),
}


class LazyGroup(click.Group):
    """A group that imports a command only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        complete_options(command, f"WYR_{cmd_name.upper()}")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    context_settings={
        "auto_envvar_prefix": "WYR",
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "max_content_width": 110,
    },
)
@click.version_option(__version__, prog_name="wyr-batch", message="%(prog)s %(version)s")
def cli() -> None:
    """Which part of each sequencing read made the classifier's call.

    \b
    wyr-batch run reads.fastq.gz -o masks.parquet
    wyr-batch info masks.parquet
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code and never lets a traceback out unless --debug is given.

    0 done; 1 input or model error; 2 usage; 3 done but some reads failed; 130 interrupted.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    code, message = 0, ""
    context: click.Context | None = None
    try:
        with cli.make_context("wyr-batch", args) as context:
            result: Any = cli.invoke(context)
        code = result if isinstance(result, int) else 0
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        code, message = 130, "wyr-batch: interrupted"
    except BrokenPipeError:
        code = 1
    except Exception as error:
        if is_debugging(context):
            raise
        code, message = _explained(error)
        message = message if isinstance(error, click.ClickException) else f"wyr-batch: {message}"
    finally:
        problem = _close_log()
    if message:
        print_error(message)
    if problem:
        print_error(f"wyr-batch: {problem}")
    return code or (1 if problem else 0)


def _explained(error: Exception) -> tuple[int, str]:
    """Return the exit code of an error, and what to say of it."""
    if isinstance(error, click.ClickException):
        shown = io.StringIO()
        error.show(shown)
        return error.exit_code, shown.getvalue().rstrip()
    if isinstance(error, WyrError):
        return error.exit_code, str(error)
    if isinstance(error, OSError) and error.filename is not None:
        got = f"'{error.strerror or error}'"
        return 1, f"{shown_path(error.filename)}: got {got}, expected a path that can be used. Check it."
    said = f"unexpected {type(error).__name__}: {error}"
    return 1, f"{said}. Run again with --debug for the traceback, and report it."


def _close_log() -> str | None:
    """End the log of the command that ran; returns why --log could not be written, if it could not."""
    log = sys.modules.get("wyr_batch.cli.log")
    return log.tear_down() if log is not None else None


def entry() -> None:
    """The console script."""
    open_standard_streams()
    code = main()
    leave_streams()
    sys.exit(code)
