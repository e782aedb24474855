"""Settings of a training: from its options, else from the TOML file of --config, else the defaults of `train.config`.

A setting is a field of one of the dataclasses there. The common ones are options of the command as well; a file may
hold any of them, by its field's name:

    steps = 1500
    lambda_area = 3
    rank_weights = [1, 1, 2]
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, TypeVar

import click

from wyr_batch.checks.fields import Fields
from wyr_batch.checks.files import read_text, shown_path
from wyr_batch.cli.params import GroupedCommand, NamedPath
from wyr_batch.cli.train.common import given
from wyr_batch.errors import UsageError

Command = TypeVar("Command", bound=Callable[..., Any])
Kind = Any  # a dataclass of train.config, which is imported by name only


class TrainingCommand(GroupedCommand):
    """A training, whose help also lists the settings that are no options.

    Args:
        kinds: the dataclasses whose fields are its settings.
    """

    def __init__(self, *args: Any, kinds: Sequence[Kind], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kinds = kinds

    def settings(self) -> dict[str, Field[Any]]:
        """Return the fields of all kinds, by name."""
        return {field.name: field for kind in self.kinds for field in fields(kind)}

    def flags(self) -> dict[str, str]:
        """Return the flags of those settings that are options as well."""
        known = self.settings()
        return {param.name: param.opts[-1] for param in self.params if param.name is not None and param.name in known}

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the settings that only a file can give, with their defaults."""
        only = {name: field.default for name, field in self.settings().items() if name not in self.flags()}
        with formatter.section("Settings for --config only, with their defaults (docs/training.md explains them)"):
            # Of text, numbers, true, false and lists, TOML and JSON are the same.
            formatter.write_text(", ".join(f"{name}={json.dumps(default)}" for name, default in only.items()))


def setting(kind: Kind, name: str, help: str, flag: str = "", **attributes: Any) -> Callable[[Command], Command]:
    """Return the option of a setting; its type and its default are the field's."""
    default = next(field.default for field in fields(kind) if field.name == name)
    flag = flag or f"--{name.replace('_', '-')}"
    if isinstance(default, bool):
        flag = f"{flag}/--no-{flag[2:]}"
    return click.option(flag, name, default=default, help=help, **attributes)


def training_options(
    loop: Kind, reads: Kind, batches: Kind, window: str = "Longest piece of a read to train on, in bases."
) -> Callable[[Command], Command]:
    """Return a decorator with the options that both trainings have.

    Args:
        loop, reads, batches: subclasses of LoopConfig, ReadsConfig and BatchConfig.
        window: help of --window.
    """
    options = [
        click.option("-o", "--output", required=True, type=NamedPath(), help="Folder to write the model to."),
        click.option(
            "--config",
            type=NamedPath(),
            metavar="TOML",
            help="Read settings from this file; those given as options take precedence.",
        ),
        setting(loop, "steps", "Number of training steps."),
        setting(loop, "evaluate_every", "Steps between evaluations, each of which saves a checkpoint."),
        setting(loop, "learning_rate", "Highest learning rate; it falls to 0 along a cosine."),
        setting(batches, "batch_reads", "Reads or texts per batch."),
        setting(batches, "window_bp", window, "--window", metavar="BP"),
        setting(reads, "null_share", "Share of the sequences without a label at the finest rank to use, from 0 to 1."),
        setting(reads, "validation_reads", "Sequences of the validation part to evaluate on."),
        setting(loop, "bf16", "Compute in mixed precision with bfloat16."),
        setting(batches, "compile", "Compile the encoder with torch.compile."),
        setting(loop, "threads", "CPU threads to use; 0 takes all this process may use."),
        setting(loop, "seed", "Seed for everything drawn at random."),
        click.option("--resume", is_flag=True, help="Continue from the newest checkpoint in the output folder."),
        click.option("--debug", is_flag=True, help="Show a traceback on errors."),
    ]

    def decorate(function: Command) -> Command:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


class Settings:
    """The settings that were given to the current command, as options or in a file."""

    def __init__(self, options: Mapping[str, Any], file: Path | None) -> None:
        """Take the settings out of the command's options and out of the file.

        Raises: UsageError if the file cannot be read, or holds what is no setting.
        """
        command = click.get_current_context().command
        assert isinstance(command, TrainingCommand)
        self._flags = command.flags()
        self._file = "" if file is None else shown_path(file)
        in_file = {} if file is None else read_settings(file, command.settings(), self._flags)
        by_option = {name: options[name] for name in self._flags if given(name)}
        self._values = {**in_file, **by_option}
        self._in_file = in_file.keys() - by_option.keys()

    def given(self, *names: str) -> list[str]:
        """Return those of these settings that were given, each as the user can find it: its flag, or file and name."""
        return [self._place(name) for name in names if name in self._values]

    def make(self, kind: Kind) -> Any:
        """Return a dataclass with the settings that were given.

        Raises: UsageError naming the flag, or file and setting.
        """
        names = {field.name for field in fields(kind)}
        try:
            return kind(**{name: value for name, value in self._values.items() if name in names})
        except UsageError as error:
            name = next((name for name, flag in self._flags.items() if flag == error.where), error.where)
            raise UsageError(self._place(name), error.got, error.expected, error.advice) from None

    def _place(self, name: str) -> str:
        return f"{self._file}, {name}" if name in self._in_file else self._flags.get(name, name)


def read_settings(path: Path, known: Mapping[str, Field[Any]], flags: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of a TOML file, each of its field's type.

    Args:
        known: what the file may hold.
        flags: of those that are options; who writes one instead of the name is told the name.
    Raises: UsageError naming the file and the setting.
    """
    shown = shown_path(path)
    try:
        content = tomllib.loads(read_text(path, UsageError))
    except (ValueError, RecursionError) as problem:
        raise UsageError(shown, f"'{problem}'", "TOML", "Write one setting per line, as in: steps = 1000") from None
    spellings = {flag[2:].replace("-", "_"): name for name, flag in flags.items()} | {name: name for name in known}
    for name, value in content.items():
        if name in known:
            continue
        if isinstance(value, dict):
            raise UsageError(shown, f"the table [{name}]", "settings outside of tables")
        close = difflib.get_close_matches(name.replace("-", "_"), spellings, n=1)
        advice = f"Did you mean {spellings[close[0]]}?" if close else ""
        raise UsageError(shown, f"the unknown setting {name!r}", f"one of {', '.join(known)}", advice)
    checked = Fields(content, shown, UsageError)
    return {name: _READERS[str(known[name].type)](checked, name) for name in content}


def _numbers(content: Fields, name: str) -> tuple[float, ...]:
    items = content.content[name]
    if not isinstance(items, list):
        raise content.wrong(name, "a list of numbers")
    named = {f"{name}[{i}]": item for i, item in enumerate(items)}
    each = Fields(named, content.where, UsageError)
    return tuple(each.number(place) for place in named)


# How a field of each type is read; the types are text, as the annotations of train.config are.
_READERS: dict[str, Callable[[Fields, str], Any]] = {
    "int": Fields.whole,
    "float": Fields.number,
    "bool": Fields.flag,
    "str": Fields.text,
    "tuple[float, ...]": _numbers,
}
