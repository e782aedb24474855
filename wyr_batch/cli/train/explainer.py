"""`wyr-batch train explainer`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wyr_batch.checks.outputs import Source
from wyr_batch.cli.params import NamedPath
from wyr_batch.cli.streams import print_error
from wyr_batch.cli.train.common import given, loop_config, loop_options, train_module
from wyr_batch.errors import UsageError


@click.command("explainer")
@click.argument("data", type=NamedPath())
@click.option("--explanandum", "explanandum_dir", required=True, type=NamedPath())
@loop_options(steps=5000, learning_rate=2e-4, batch_reads=48)
@click.option("--lambda-entropy", default=1.0)
@click.option("--lambda-area", default=1.0)
@click.option("--lambda-variation", default=1.0)
@click.option("--lambda-other", default=1.0, help="Weight of the other classes' masks in area and variation.")
@click.option("--area-least", default=0.05, help="a: below this share a class's mask is penalised.")
@click.option("--area-most", default=0.3, help="b: above this share a class's mask is penalised.")
@click.option("--complement", type=click.Choice(["entropy", "call"]), default="entropy", help="The paper's: entropy.")
@click.option("--entropy-scale", type=click.Choice(["classes", "log"]), default="classes", help="The paper's: classes.")
@click.option("--targets", type=click.Choice(["predicted", "labels"]), default="predicted", help="Classes to explain.")
@click.option("--sharpness", default=1.0, help="Multiplies the classifier's logits in the classification term.")
@click.option("--complement-sharpness", default=1.0, help="Multiplies them in the complement's term.")
@click.option(
    "--rank-weights", metavar="1,1,2", help="Weights of the ranks in the classification term, coarsest first."
)
@click.option("--warm-start-steps", default=0, help="Steps that first teach where tokens speak for the class.")
@click.option("--warm-start-share", default=0.45, help="Share of tokens to mark then.")
@click.option("--start-from", type=NamedPath(), help="Explainer to begin with instead of random weights.")
@click.option("--randomise", type=int, metavar="SEED", help="Shuffle the classifier's weights first: sanity check.")
def command(
    data: Path,
    explanandum_dir: Path,
    output: Path,
    null_share: float,
    validation_reads: int,
    resume: bool,
    start_from: Path | None,
    randomise: int | None,
    rank_weights: str | None,
    **options: Any,
) -> None:
    """Train an Explainer against a frozen Explanandum.

    \b
    wyr-batch train explainer markers.parquet --explanandum explanandum -o explainer
    wyr-batch train explainer markers.parquet --explanandum explanandum -o explainer --resume
    """
    configs, loop = train_module("config"), loop_config(options)
    chosen = configs.ReadsConfig(null_share, validation_reads)
    config = configs.ExplainerTraining(rank_weights=_numbers(rank_weights, "--rank-weights"), **options)
    configs.check_counts([("--randomise", randomise, 0)], configs.MOST_SEED)
    sources = [Source("DATA", data), Source("--explanandum", explanandum_dir)]
    if start_from is not None:
        sources.append(Source("--start-from", start_from))
        if config.warm_start_steps:
            raise UsageError("--start-from: got --warm-start-steps as well, expected one of the two.")
    if given("warm_start_share") and not config.warm_start_steps:
        raise UsageError("--warm-start-share: got no --warm-start-steps, expected 1 or more of them.")
    if given("entropy_scale") and config.complement != "entropy":
        raise UsageError(
            f"--entropy-scale: got --complement {config.complement} as well, expected --complement entropy."
        )
    train_module("places").check_training_folder(output, "explainer", sources)
    module, labelled, loops = (train_module(name) for name in ("fit.explainer", "data.labelled", "fit.loop"))
    from wyr_batch.models.checkpoints import load_explanandum

    loops.set_threads(loop.threads)
    model, ranks = load_explanandum(explanandum_dir)
    config.check_ranks(len(ranks))
    table = labelled.read_table(data)
    training = labelled.load_reads(table, ranks, "train", chosen.null_share, source=data)
    validation = labelled.load_reads(table, ranks, "validation", chosen.null_share, source=data)
    warn_of_blank(model, ranks, training)
    if randomise is not None:
        module.randomise(model, randomise)
    with loops.said_clearly(output):
        module.train_explainer(
            model,
            training,
            validation.sample(validation_reads),
            output,
            config,
            loop,
            resume=resume,
            start_from=start_from,
            provenance={"null_share": null_share, "randomised": randomise},
        )
    print_error(f"{output}: explainer trained")


def _numbers(text: str | None, option: str) -> tuple[float, ...]:
    """Return the numbers of a comma-separated list; none where nothing was given."""
    try:
        return () if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option}: got {text}, expected numbers with commas between. Write 1,1,2.") from None


def warn_of_blank(model: Any, ranks: Any, reads: Any) -> None:
    """Say where the classifier makes up its mind about a wholly masked read (the paper, Methods)."""
    import numpy as np
    import torch

    module, reader = train_module("measure.evaluate"), train_module("data.batches")
    with torch.inference_mode():
        batch = reader.evaluation_batch(reads, np.arange(min(16, len(reads))), 1500)
        worst = module.blank_divergence(model, batch.input_ids).tolist()
    for rank, divergence in zip(ranks, worst, strict=True):
        if divergence > module.BLANK_LIMIT:
            print_error(module.blank_warning(rank.name, divergence))
