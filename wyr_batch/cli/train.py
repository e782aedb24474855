"""`wyr-batch train`: prepare, explanandum, explainer. The work is in `wyr_batch.train`, imported when it is called."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import click

from wyr_batch.errors import MissingExtraError

# The built-in starter's classes: genera with this many sequences outside the test part.
MIN_SEQUENCES = 780

Command = TypeVar("Command", bound=Callable[..., Any])


def train_module(name: str) -> ModuleType:
    """Import a module of wyr_batch.train, or say which extra is missing."""
    try:
        return importlib.import_module(f"wyr_batch.train.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("wyr_batch"):
            raise
        raise MissingExtraError("wyr-batch train", error.name or name, "train") from None


@click.group("train")
def command() -> None:
    """Prepare labelled reads, train Explanandum and Explainer.

    \b
    wyr-batch train prepare -o markers.parquet
    wyr-batch train explanandum markers.parquet -o explanandum
    wyr-batch train explainer markers.parquet --explanandum explanandum -o explainer
    """


def loop_options(steps: int, learning_rate: float, batch_reads: int) -> Callable[[Command], Command]:
    """Options that both trainings share, with their defaults."""

    def decorate(function: Command) -> Command:
        for option in reversed(
            [
                click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder to write."),
                click.option("--steps", default=steps, help="Batches to train on."),
                click.option("--evaluate-every", default=500, help="Steps between evaluations and checkpoints."),
                click.option("--patience", default=5, help="Evaluations without progress before stopping early."),
                click.option("--learning-rate", default=learning_rate, help="At its highest; cosine to 0."),
                click.option("--warmup-steps", default=0, help="Steps to reach it."),
                click.option("--weight-decay", default=0.0, help="Of AdamW."),
                click.option("--batch-reads", default=batch_reads, help="Reads a batch."),
                click.option("--window", "window_bp", default=1500, metavar="BP", help="Longest piece of a read."),
                click.option("--full-share", default=0.5, help="Share of reads not cut shorter than the window."),
                click.option("--null-leaf-weight", default=8.0, help="How often reads without a finest label come."),
                click.option("--null-share", default=0.5, help="Share of the reads without a finest label to use."),
                click.option("--validation-reads", default=3000, help="Reads of the validation part to evaluate on."),
                click.option("--bf16", is_flag=True, help="Mixed precision."),
                click.option("--threads", default=0, help="CPU threads. 0: all this process may use."),
                click.option("--seed", default=0),
                click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in the folder."),
                click.option("--debug", is_flag=True, help="Show a traceback with an error."),
            ]
        ):
            function = option(function)
        return function

    return decorate


def _loop(options: dict[str, Any]) -> Any:
    """Take the loop's options out of `options` and return a LoopConfig; sets torch's threads."""
    import torch

    from wyr_batch.config import available_cpus

    torch.set_num_threads(options.pop("threads") or available_cpus())
    options.pop("debug")
    names = ("steps", "evaluate_every", "learning_rate", "warmup_steps", "weight_decay", "patience", "bf16", "seed")
    return train_module("loop").LoopConfig(**{name: options.pop(name) for name in names})


@command.command("prepare")
@click.argument("fasta", type=click.Path(path_type=Path), required=False)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Parquet file to write.")
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
def prepare(fasta: Path | None, output: Path, debug: bool) -> None:
    """Label the marker genes of Debian's metaphlan2-data with NCBI lineages (PyPI's taxoniq).

    FASTA is the package's markers.fasta; without it, the package is downloaded with apt and unpacked beside the output.

    \b
    wyr-batch train prepare -o markers.parquet
    wyr-batch train prepare markers.fasta -o markers.parquet
    """
    done = train_module("markers").prepare(fasta, output)
    counts = {"sequences": done.n_sequences, "without_lineage": done.n_without_lineage}
    click.echo(json.dumps({**counts, "by_superkingdom": done.by_superkingdom, "by_split": done.by_split}, indent=2))


@command.command("explanandum")
@click.argument("data", type=click.Path(path_type=Path))
@loop_options(steps=4000, learning_rate=2e-4, batch_reads=128)
@click.option("--min-sequences", default=MIN_SEQUENCES, help="Sequences a finest class needs outside the test part.")
@click.option("--hidden-size", default=128)
@click.option("--layers", "num_hidden_layers", default=4)
@click.option("--heads", "num_attention_heads", default=4)
@click.option("--intermediate-size", default=256)
@click.option("--pooling", type=click.Choice(["mean", "cls"]), default="mean")
@click.option("--frame-loss", default=0.5, help="Weight of the helper task: strand and codon phase. 0 for none.")
@click.option("--dropout", default=0.1, help="Of pooled features.")
@click.option("--compile", is_flag=True, help="Compile the encoder with torch.compile.")
def explanandum(
    data: Path, output: Path, min_sequences: int, null_share: float, validation_reads: int, resume: bool, **options: Any
) -> None:
    """Train a classifier of reads from scratch: an NT v2 encoder with one head per rank.

    \b
    wyr-batch train explanandum markers.parquet -o explanandum --learning-rate 2e-3 --bf16
    wyr-batch train explanandum markers.parquet -o explanandum --resume
    """
    module, reader = train_module("explanandum"), train_module("data")
    loop = _loop(options)
    table = reader.read_table(data)
    ranks = reader.choose_ranks(table, train_module("markers").RANKS, min_sequences)
    module.train_explanandum(
        ranks,
        reader.load_reads(table, ranks, "train", null_share),
        reader.load_reads(table, ranks, "validation", null_share).sample(validation_reads),
        output,
        module.ExplanandumConfig(**options),
        loop,
        resume=resume,
        provenance={"min_sequences": min_sequences, "null_share": null_share},
    )
    click.echo(f"{output}: explanandum trained", err=True)


@command.command("explainer")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--explanandum", "explanandum_dir", required=True, type=click.Path(path_type=Path))
@loop_options(steps=5000, learning_rate=2e-4, batch_reads=48)
@click.option("--lambda-entropy", default=1.0)
@click.option("--lambda-area", default=1.0)
@click.option("--lambda-variation", default=1.0)
@click.option("--area-least", default=0.05, help="a: below this share a class's mask is penalised.")
@click.option("--area-most", default=0.3, help="b: above this share a class's mask is penalised.")
@click.option("--entropy-scale", type=click.Choice(["classes", "log"]), default="classes", help="The paper's: classes.")
@click.option("--targets", type=click.Choice(["predicted", "labels"]), default="predicted", help="Classes to explain.")
def explainer(
    data: Path,
    explanandum_dir: Path,
    output: Path,
    null_share: float,
    validation_reads: int,
    resume: bool,
    **options: Any,
) -> None:
    """Train an Explainer against a frozen Explanandum.

    \b
    wyr-batch train explainer markers.parquet --explanandum explanandum -o explainer
    wyr-batch train explainer markers.parquet --explanandum explanandum -o explainer --resume
    """
    module, reader = train_module("explainer"), train_module("data")
    loop = _loop(options)
    from wyr_batch.models.checkpoints import load_explanandum

    model, ranks = load_explanandum(explanandum_dir)
    table = reader.read_table(data)
    module.train_explainer(
        model,
        reader.load_reads(table, ranks, "train", null_share),
        reader.load_reads(table, ranks, "validation", null_share).sample(validation_reads),
        output,
        module.ExplainerTraining(**options),
        loop,
        resume=resume,
        provenance={"null_share": null_share},
    )
    click.echo(f"{output}: explainer trained", err=True)
