"""Standard streams as a command finds them: closed, not blocking, full, or read by nobody any more."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress

import click

from wyr_batch.checks.files import reason_of
from wyr_batch.errors import OutputError


def open_standard_streams() -> None:
    """Make the three streams safe to use, before anything is opened.

    A closed one becomes a stream that fails when it is used: its number would else go to the next file that is opened,
    and messages into that file. One that does not block is made to block, or long output would be lost.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY)  # takes the lowest free number; writing to it is an error
        else:
            if not os.get_blocking(number):
                os.set_blocking(number, True)
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)


def print_result(text: str, color: bool | None = None) -> None:
    """Print a command's result on standard output.

    Args:
        color: keep its colours; None: if it is a terminal.
    Raises: OutputError if standard output does not take it; BrokenPipeError.
    """
    try:
        click.echo(text, color=color)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            "standard output", f"'{reason_of(error)}'", "it to take the result", "Redirect it elsewhere."
        ) from None


def print_error(text: str) -> None:
    """Print a message on standard error, if there is one that takes it."""
    with suppress(OSError, ValueError):
        click.echo(text, err=True)


def leave_streams() -> None:
    """Let the interpreter end without a message of its own on what a stream did not take."""
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
