"""`wyr-batch train explanandum`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from wyr_batch.checks.outputs import Source
from wyr_batch.cli.params import NamedPath
from wyr_batch.cli.streams import print_error
from wyr_batch.cli.train.common import train_module
from wyr_batch.cli.train.settings import Settings, TrainingCommand, setting, training_options
from wyr_batch.errors import UsageError

configs = train_module("config")
MODEL = configs.ExplanandumConfig
KINDS = (configs.ExplanandumLoop, configs.ExplanandumReads, MODEL)
SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
GROUPS = {
    "Data and output": ("output", "min_sequences", "null_share", "validation_reads", "resume"),
    "Training": ("config", "steps", "evaluate_every", "learning_rate", "batch_reads", "window_bp", "balance", "seed"),
    "Model": ("start_from", *SIZES, "pooling"),
    "Machine": ("bf16", "compile", "threads"),
    "Message": ("debug", "help"),
}


@click.command("explanandum", cls=TrainingCommand, kinds=KINDS, groups=GROUPS)
@click.argument("data", type=NamedPath())
@training_options(*KINDS)
@setting(
    configs.ExplanandumReads,
    "min_sequences",
    "Fewest sequences outside the test part for a class of the finest rank to be learnt.",
)
@setting(MODEL, "hidden_size", "Width of the encoder.")
@setting(MODEL, "num_hidden_layers", "Number of encoder layers.", "--layers")
@setting(MODEL, "num_attention_heads", "Number of attention heads per layer.", "--heads")
@setting(MODEL, "intermediate_size", "Width of the feed-forward part of a layer.")
@setting(MODEL, "pooling", "Classify from the mean of all tokens, or from <cls>.", type=click.Choice(configs.POOLINGS))
@click.option(
    "--start-from",
    metavar="DIR|HUB_ID",
    help="Fine-tune this Nucleotide Transformer v2 encoder instead of training a new one.",
)
@setting(
    MODEL,
    "balance",
    "Make up for rare classes by drawing all classes equally often, by weights in the loss, or not at all.",
    type=click.Choice(configs.BALANCES),
)
def command(
    data: Path,
    output: Path,
    config: Path | None,
    resume: bool,
    start_from: str | None,
    **options: Any,
) -> None:
    """Train a classifier of reads: an NT v2 encoder, from scratch or fine-tuned, with one head per rank.

    DATA is a file that `wyr-batch train prepare` wrote.

    \b
    wyr-batch train explanandum markers.parquet -o explanandum --learning-rate 2e-3 --bf16
    wyr-batch train explanandum reads.parquet -o explanandum --bf16 \\
        --start-from InstaDeepAI/nucleotide-transformer-v2-50m-multi-species
    wyr-batch train explanandum markers.parquet -o explanandum --resume
    """
    settings = Settings(options, config)
    loop, reads, model = (settings.make(kind) for kind in KINDS)
    sources = [Source("DATA", data)]
    if start_from is not None:
        if not start_from.strip():
            raise UsageError("--start-from", "an empty name", "a directory or the id of a model on the Hub")
        if sizes := settings.given(*SIZES):
            raise UsageError(sizes[0], "--start-from as well", "one of the two: the encoder has its sizes")
        sources.append(Source("--start-from", start_from))
    train_module("places").check_training_folder(output, "explanandum", sources)
    module, labelled, loops = (train_module(name) for name in ("fit.explanandum", "data.labelled", "fit.loop"))
    loops.set_threads(loop.threads)
    table = labelled.read_table(data)
    labelled.check_input(table, "reads", data)
    ranks = labelled.choose_ranks(table, train_module("data.prepare").rank_names(table), reads.min_sequences, data)
    with loops.said_clearly(output):
        train, validation = (
            labelled.load_reads(table, ranks, part, reads.null_share, source=data) for part in ("train", "validation")
        )
        module.train_explanandum(
            ranks,
            train,
            validation.sample(reads.validation_reads),
            output,
            model,
            loop,
            resume=resume,
            start_from=start_from,
            provenance=asdict(reads),
        )
    print_error(f"{output}: explanandum trained")
