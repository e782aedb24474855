"""`wyr-batch train explanandum`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wyr_batch.checks.outputs import Source
from wyr_batch.cli.params import NamedPath
from wyr_batch.cli.streams import print_error
from wyr_batch.cli.train.common import given, loop_config, loop_options, train_module
from wyr_batch.errors import UsageError

# The built-in starter's classes: genera with this many sequences outside the test part.
MIN_SEQUENCES = 780


@click.command("explanandum")
@click.argument("data", type=NamedPath())
@loop_options(steps=4000, learning_rate=2e-4, batch_reads=128)
@click.option("--min-sequences", default=MIN_SEQUENCES, help="Sequences a finest class needs outside the test part.")
@click.option("--hidden-size", default=128)
@click.option("--layers", "num_hidden_layers", default=4)
@click.option("--heads", "num_attention_heads", default=4)
@click.option("--intermediate-size", default=256)
@click.option("--pooling", type=click.Choice(["mean", "cls"]), default="mean")
@click.option(
    "--start-from", metavar="DIR|HUB_ID", help="NT v2 encoder to fine-tune; its sizes replace the ones above."
)
@click.option(
    "--balance",
    type=click.Choice(["sampling", "weights", "none"]),
    default="sampling",
    help="Against rare classes: draw all alike, weigh them in the loss, or nothing.",
)
@click.option("--frame-loss", default=0.5, help="Weight of the helper task: strand and codon phase. 0 for none.")
@click.option("--dropout", default=0.1, help="Of pooled features.")
@click.option("--hide-share", default=0.0, help="Half of the reads have up to this share of their tokens hidden.")
def command(
    data: Path,
    output: Path,
    min_sequences: int,
    null_share: float,
    validation_reads: int,
    resume: bool,
    start_from: str | None,
    **options: Any,
) -> None:
    """Train a classifier of reads: an NT v2 encoder, from scratch or fine-tuned, with one head per rank.

    \b
    wyr-batch train explanandum markers.parquet -o explanandum --learning-rate 2e-3 --bf16
    wyr-batch train explanandum reads.parquet -o explanandum --bf16 \\
        --start-from InstaDeepAI/nucleotide-transformer-v2-50m-multi-species
    wyr-batch train explanandum markers.parquet -o explanandum --resume
    """
    configs, loop = train_module("config"), loop_config(options)
    chosen = configs.ReadsConfig(null_share, validation_reads, min_sequences)
    config = configs.ExplanandumConfig(**options)
    sources = [Source("DATA", data)]
    if start_from is not None:
        if not start_from.strip():
            raise UsageError("--start-from: got an empty name, expected a directory or the id of a model on the Hub.")
        if sizes := given("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
            raise UsageError(
                f"{sizes[0]}: got --start-from as well, expected one of the two: the encoder has its sizes."
            )
        sources.append(Source("--start-from", start_from))
    train_module("places").check_training_folder(output, "explanandum", sources)
    module, labelled, loops = (train_module(name) for name in ("fit.explanandum", "data.labelled", "fit.loop"))
    loops.set_threads(loop.threads)
    table = labelled.read_table(data)
    ranks = labelled.choose_ranks(table, train_module("data.prepare").rank_names(table), chosen.min_sequences, data)
    with loops.said_clearly(output):
        module.train_explanandum(
            ranks,
            labelled.load_reads(table, ranks, "train", chosen.null_share, source=data),
            labelled.load_reads(table, ranks, "validation", chosen.null_share, source=data).sample(validation_reads),
            output,
            config,
            loop,
            resume=resume,
            start_from=start_from,
            provenance={"min_sequences": min_sequences, "null_share": null_share},
        )
    print_error(f"{output}: explanandum trained")
