"""The command in a process of its own, for what shows only there: signals, streams, limits, the locale."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import click
import pytest

from wyr_batch.cli import cli, main


def command_after(*before: str) -> list[str]:
    """Return the words that start `wyr-batch`, after these lines of Python."""
    return [sys.executable, "-c", "\n".join(["import sys", *before, "from wyr_batch.cli import main", _CALL])]


_CALL = "sys.exit(main(sys.argv[1:]))"
WYR_BATCH = command_after()

# In chunks of 128 reads, so that few reads make many parts.
SMALL_CHUNKS = (
    "from functools import partial",
    "from wyr_batch.reads import stream",
    "stream.open_reads = partial(stream.open_reads, chunk_reads=128)",
)


def finished(words: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(words, capture_output=True, text=True, **options)


def info_refusal(capsys: pytest.CaptureFixture[str], path: object) -> str:
    """Return what `info` says of a path that it refuses."""
    capsys.readouterr()
    assert main(["info", str(path)]) == 1
    said = capsys.readouterr().err
    assert "unexpected" not in said
    assert ": got " in said
    assert ", expected " in said
    return said


def parse(words: list[str]) -> None:
    """Parse what stands after `wyr-batch`, to the last option of the command, without calling it."""
    words = list(words)
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group) and not words[0].startswith("-"):
        found = command.get_command(context, words.pop(0))
        assert found is not None, words
        command = found
    if command is cli:
        assert words[0] in {flag for param in cli.get_params(context) for flag in param.opts}, words
    else:
        command.make_context(command.name, words).close()
