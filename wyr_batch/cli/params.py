"""What the commands' parameters have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from wyr_batch.errors import UsageError

_DEBUG = "wyr_batch.debug"


class NamedPath(click.Path):
    """A path that is not empty: '' is what an unset variable of the shell leaves, and would mean this folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "" and param is not None:
            flag = param.opts[0] if isinstance(param, click.Option) else param.human_readable_name
            raise UsageError(flag, "an empty name", "a path")
        return super().convert(value, param, ctx)


class GroupedCommand(click.Command):
    """A command whose help shows its options in groups.

    Args:
        groups: heading -> names of parameters; every option is in one of them.
    """

    def __init__(self, *args: Any, groups: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the groups, each under its heading."""
        options = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        named = {"help" if "--help" in option.opts else option.name: option for option in options}
        records = {name: option.get_help_record(ctx) for name, option in named.items()}
        for heading, names in self.groups.items():
            with formatter.section(f"{heading} options"):
                formatter.write_dl([record for name in names if (record := records.pop(name, None)) is not None])
        left = [name for name, record in records.items() if record is not None]
        assert not left, f"options in no group: {left}"


def complete_options(command: click.Command, prefix: str) -> None:
    """Give every option of a command, and of its subcommands, the environment name that its flag says.

    Click would take the parameter's name, as in WYR_RUN_WINDOW_BP for --window.
    """
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            complete_options(inner, f"{prefix}_{name.upper()}")
    for param in command.params:
        if isinstance(param, click.Option):
            flag = next(name for name in param.opts if name.startswith("--"))
            param.envvar = f"{prefix}_{flag[2:].replace('-', '_').upper()}"
            param.allow_from_autoenv = False
            if param.name == "debug":
                param.callback = _remember_debug


def _remember_debug(context: click.Context, param: click.Parameter, value: bool) -> bool:
    context.meta[_DEBUG] = value
    return value


def is_debugging(context: click.Context | None) -> bool:
    """True if --debug, or its name in the environment, was given to the command of this context."""
    return bool(context is not None and context.meta.get(_DEBUG))
