"""What the training commands share: options of a training loop, and modules imported when they are needed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from wyr_batch.cli.params import NamedPath
from wyr_batch.errors import MissingExtraError

Command = TypeVar("Command", bound=Callable[..., Any])


def train_module(name: str) -> ModuleType:
    """Import a module of wyr_batch.train, or say which extra is missing."""
    try:
        return importlib.import_module(f"wyr_batch.train.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("wyr_batch"):
            raise
        raise MissingExtraError("wyr-batch train", error.name or name, "train") from None


def given(*names: str) -> list[str]:
    """Return the flags of those of these parameters that the user gave, in the command line or the environment."""
    context = click.get_current_context()
    return [
        param.opts[-1]
        for param in context.command.params
        if param.name in names and context.get_parameter_source(param.name) is not ParameterSource.DEFAULT
    ]


def loop_options(steps: int, learning_rate: float, batch_reads: int) -> Callable[[Command], Command]:
    """Options that both trainings share, with their defaults."""

    def decorate(function: Command) -> Command:
        for option in reversed(
            [
                click.option("-o", "--output", required=True, type=NamedPath(), help="Folder to write."),
                click.option("--steps", default=steps, help="Batches to train on."),
                click.option("--evaluate-every", default=500, help="Steps between evaluations and checkpoints."),
                click.option("--patience", default=5, help="Evaluations without progress before stopping early."),
                click.option("--learning-rate", default=learning_rate, help="At its highest; cosine to 0."),
                click.option("--warmup-steps", default=0, help="Steps to reach it."),
                click.option("--weight-decay", default=0.0, help="Of AdamW."),
                click.option("--batch-reads", default=batch_reads, help="Reads a batch."),
                click.option("--gradient-accumulation", default=1, help="Batches a step."),
                click.option("--window", "window_bp", default=1500, metavar="BP", help="Longest piece of a read."),
                click.option("--full-share", default=0.5, help="Share of reads not cut shorter than the window."),
                click.option("--null-leaf-weight", default=8.0, help="How often reads without a finest label come."),
                click.option("--null-share", default=0.5, help="Share of the reads without a finest label to use."),
                click.option("--validation-reads", default=3000, help="Reads of the validation part to evaluate on."),
                click.option("--bf16", is_flag=True, help="Mixed precision."),
                click.option("--compile", is_flag=True, help="Compile the encoder with torch.compile."),
                click.option("--threads", default=0, help="CPU threads. 0: all this process may use."),
                click.option("--seed", default=0, help="Of what is drawn at random."),
                click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in the folder."),
                click.option("--debug", is_flag=True, help="Show a traceback with an error."),
            ]
        ):
            function = option(function)
        return function

    return decorate


def loop_config(options: dict[str, Any]) -> Any:
    """Take the loop's options out of `options` and return a LoopConfig."""
    options.pop("debug")
    numbers = ("steps", "evaluate_every", "warmup_steps", "patience", "gradient_accumulation", "seed", "threads")
    names = (*numbers, "learning_rate", "weight_decay", "bf16")
    return train_module("config").LoopConfig(**{name: options.pop(name) for name in names})
