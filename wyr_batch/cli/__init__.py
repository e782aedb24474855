"""The command line: `wyr-batch COMMAND`. Commands are imported when they are called, so that --help is instant."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from wyr_batch import __version__
from wyr_batch.errors import WyrError

# Command -> module with a click command named `command`, and its line in --help.
COMMANDS = {
    "run": ("wyr_batch.cli.run", "Explain reads: which part of each made the call."),
    "export": ("wyr_batch.cli.export", "Fuse Explainer and Explanandum into one proven ONNX bundle."),
    "train": ("wyr_batch.cli.train", "Prepare labelled reads, train Explanandum and Explainer."),
    "evaluate": ("wyr_batch.cli.evaluate", "Measure how well masks keep, and their complements lose, the call."),
    "info": ("wyr_batch.cli.info", "Show what a bundle holds, or how a Parquet file of masks was made."),
}


class LazyGroup(click.Group):
    """A group that imports a command only when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
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
    debug = "--debug" in args
    try:
        result: Any = cli.main(args=args, prog_name="wyr-batch", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Abort:
        message, code = "interrupted", 130
    except KeyboardInterrupt:
        message, code = "interrupted", 130
    except click.ClickException as error:
        if debug:
            raise
        error.show()
        return error.exit_code
    except WyrError as error:
        if debug:
            raise
        message, code = str(error), error.exit_code
    except BrokenPipeError:
        return 1
    except Exception as error:
        if debug:
            raise
        message = (
            f"unexpected {type(error).__name__}: {error}. Run again with --debug for the traceback, and report it."
        )
        code = 1
    click.echo(f"wyr-batch: {message}", err=True)
    return code


def entry() -> None:
    """The console script."""
    sys.exit(main())
