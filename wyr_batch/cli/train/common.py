"""What the training commands share: modules imported when they are needed, and the options that were given."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from click.core import ParameterSource

from wyr_batch.cli.streams import print_error
from wyr_batch.errors import MissingExtraError, UsageError


def train_module(name: str) -> ModuleType:
    """Import a module of wyr_batch.train, or say which extra is missing."""
    try:
        return importlib.import_module(f"wyr_batch.train.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("wyr_batch"):
            raise
        context = click.get_current_context(silent=True)
        what = context.command_path if context else "wyr-batch train"
        raise MissingExtraError(what, error.name or name, "train") from None


def given(*names: str) -> list[str]:
    """Return the flags of those of these parameters that the user gave, on the command line or in the environment."""
    context = click.get_current_context()
    return [
        param.opts[-1]
        for param in context.command.params
        if param.name in names and context.get_parameter_source(param.name) is not ParameterSource.DEFAULT
    ]


def coding_of(model: Any, window: int | None, flag: str = "--window") -> Any:
    """Return how sequences become tokens for a classifier, and how many a row has at most.

    Args:
        window: tokens that were asked for, None for as many as the classifier takes; of no account for 6-mers.
        flag: where it was asked for.
    """
    coding = train_module("data.coding")
    try:
        return coding.coding_of(model, window or 0)
    except UsageError as error:
        raise UsageError(flag, error.got, error.expected, error.advice) from None


def coded(reads: Any, coding: Any, data: Path) -> Any:
    """Return labelled sequences with their tokens counted, and say how many were left out for those."""
    found = reads.coded(coding, data)
    if n := len(reads) - len(found):
        most = coding.window_tokens
        print_error(
            f"{data}: {n:,} of {len(reads):,} left out: without a token, or a pair of more than {most:,} tokens"
        )
    return found
