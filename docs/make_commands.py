"""docs/commands.md from the help of every command, as click prints it on 100 columns.

python docs/make_commands.py [PAGE]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from wyr_batch.cli import cli

PAGE = Path(__file__).parent / "commands.md"
COLUMNS = 100

HEAD = """# Commands

Made by `python docs/make_commands.py` from `--help`. An option given on the command line goes before its environment
variable.
"""


def walk(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield a command and all below it, each with the context that its help is printed in."""
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None, name
            yield from walk(inner, click.Context(inner, parent=context, info_name=name, **inner.context_settings))


def environment(command: click.Command, path: str) -> str:
    """Return the line on a command's environment variables, with a real one as example; empty without any."""
    names = [param.envvar for param in command.params if isinstance(param, click.Option)]
    found = [name for name in names if isinstance(name, str)]
    if not found:
        return ""
    prefix = "_".join(["WYR", *path.upper().split()[1:], ""])
    assert all(name.startswith(prefix) for name in found), path
    return f"Environment: `{prefix}` and the option's name, as in `{found[0]}`.\n\n"


def render() -> str:
    """Return the page. Terminal, folder and machine make no difference."""
    top = click.Context(cli, info_name="wyr-batch", terminal_width=COLUMNS, **cli.context_settings)
    parts = [HEAD]
    for command, context in walk(cli, top):
        path = context.command_path
        parts.append(f"## {path}\n\n{environment(command, path)}```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    Path(sys.argv[1] if len(sys.argv) > 1 else PAGE).write_text(render())
