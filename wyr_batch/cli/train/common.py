"""What the training commands share: modules imported when they are needed, and the options that were given."""

from __future__ import annotations

import importlib
from types import ModuleType

import click
from click.core import ParameterSource

from wyr_batch.errors import MissingExtraError


def train_module(name: str) -> ModuleType:
    """Import a module of wyr_batch.train, or say which extra is missing."""
    try:
        return importlib.import_module(f"wyr_batch.train.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("wyr_batch"):
            raise
        raise MissingExtraError("wyr-batch train", error.name or name, "train") from None


def given(*names: str) -> list[str]:
    """Return the flags of those of these parameters that the user gave, on the command line or in the environment."""
    context = click.get_current_context()
    return [
        param.opts[-1]
        for param in context.command.params
        if param.name in names and context.get_parameter_source(param.name) is not ParameterSource.DEFAULT
    ]
