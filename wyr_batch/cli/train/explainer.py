"""`wyr-batch train explainer`."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from wyr_batch.checks.outputs import Source
from wyr_batch.cli.params import NamedPath
from wyr_batch.cli.streams import print_error
from wyr_batch.cli.train.common import coded, coding_of, train_module
from wyr_batch.cli.train.settings import Settings, TrainingCommand, setting, training_options
from wyr_batch.errors import UsageError

configs = train_module("config")
KINDS = (configs.ExplainerLoop, configs.ReadsConfig, configs.ExplainerTraining)
GROUPS = {
    "Data and output": ("output", "null_share", "validation_reads", "resume"),
    "Training": (
        "config",
        "steps",
        "evaluate_every",
        "learning_rate",
        "batch_reads",
        "window_bp",
        "lambda_area",
        "target_area",
        "chimera_share",
        "seed",
    ),
    "Model": ("explanandum_dir", "kind", "start_from", "randomise"),
    "Machine": ("bf16", "compile", "threads"),
    "Message": ("debug", "help"),
}


@click.command("explainer", cls=TrainingCommand, kinds=KINDS, groups=GROUPS)
@click.argument("data", type=NamedPath())
@click.option(
    "--explanandum",
    "explanandum_dir",
    required=True,
    type=NamedPath(),
    help="Folder of the classifier to explain.",
)
@training_options(
    *KINDS,
    "Longest piece to train on: bases of 6-mers, else tokens, of which all that the classifier takes is the default.",
)
@setting(configs.ExplainerTraining, "lambda_area", "Weight of the area term; more of it gives smaller masks.")
@setting(
    configs.ExplainerTraining,
    "target_area",
    "Mean mask to hold, such as 0.5 for half of the read or text; 0 leaves it to --lambda-area.",
)
@setting(
    configs.ExplainerTraining,
    "chimera_share",
    "Share of the reads or texts that are joined of two of different classes and asked for one of them.",
)
@setting(
    configs.ExplainerTraining,
    "kind",
    "Kind of Explainer: lstm reads tokens, as in the paper; readout reads the classifier's hidden states.",
    type=click.Choice(configs.EXPLAINER_KINDS),
)
@click.option("--start-from", type=NamedPath(), help="Start from this Explainer's weights instead of random ones.")
@click.option(
    "--randomise",
    type=int,
    metavar="SEED",
    help="Shuffle the classifier's weights first, for the sanity check of `wyr-batch evaluate`.",
)
def command(
    data: Path,
    explanandum_dir: Path,
    output: Path,
    config: Path | None,
    resume: bool,
    start_from: Path | None,
    randomise: int | None,
    **options: Any,
) -> None:
    """Train an Explainer against a frozen Explanandum, a classifier of reads, texts or proteins.

    DATA is a file that `wyr-batch train prepare` wrote; its labels go by the names of the classifier's.

    \b
    wyr-batch train explainer markers.parquet --explanandum explanandum -o explainer --config settings.toml
    wyr-batch train explainer markers.parquet --explanandum explanandum -o explainer --resume
    """
    settings = Settings(options, config)
    loop, reads, training = (settings.make(kind) for kind in KINDS)
    limits = train_module("limits")
    limits.check_counts([("--randomise", randomise, 0)], limits.MOST_SEED)
    sources = [Source("DATA", data), Source("--explanandum", explanandum_dir)]
    if start_from is not None:
        sources.append(Source("--start-from", start_from))
        if training.warm_start_steps:
            raise UsageError("--start-from", "warm_start_steps as well", "one of the two")
    if (share := settings.given("warm_start_share")) and not training.warm_start_steps:
        raise UsageError(share[0], "no warm_start_steps", "1 or more of them")
    if (scale := settings.given("entropy_scale")) and training.complement != "entropy":
        raise UsageError(scale[0], f'complement = "{training.complement}" as well', 'complement = "entropy"')
    if (other := settings.given("lambda_other")) and training.kind != "lstm" and training.lambda_other:
        raise UsageError(other[0], f'kind = "{training.kind}" as well', 'kind = "lstm"')
    train_module("places").check_training_folder(output, "explainer", sources)
    module, labelled, loops = (train_module(name) for name in ("fit.explainer", "data.labelled", "fit.loop"))
    from wyr_batch.models.checkpoints import load_explanandum

    loops.set_threads(loop.threads)
    model, ranks = load_explanandum(explanandum_dir)
    training.check_ranks(len(ranks))
    coding, training = with_window(model, training, settings)
    table = labelled.read_table(data)
    labelled.check_input(table, coding.kind, data)
    train, validation = (
        labelled.load_reads(table, ranks, part, reads.null_share, source=data) for part in ("train", "validation")
    )
    train, validation = coded(train, coding, data), coded(validation.sample(reads.validation_reads), coding, data)
    warn_of_blank(model, ranks, train)
    if randomise is not None:
        module.randomise(model, randomise)
    with loops.said_clearly(output):
        module.train_explainer(
            model,
            train,
            validation,
            output,
            training,
            loop,
            resume=resume,
            start_from=start_from,
            provenance={**asdict(reads), "randomised": randomise},
        )
    print_error(f"{output}: explainer trained")


def with_window(model: Any, training: Any, settings: Settings) -> tuple[Any, Any]:
    """Return how sequences become tokens for a classifier, and the settings with the window that this gives.

    Raises: UsageError for a window of bases where it is of tokens, or of tokens where it is of bases.
    """
    in_bp, in_tokens = settings.given("window_bp"), settings.given("window_tokens")
    tokens = training.window_tokens if in_tokens else None
    if in_bp and in_bp[0].startswith("--"):
        tokens = training.window_bp
    coding = coding_of(model, tokens, (in_bp or in_tokens or ["--window"])[0])
    if coding.is_kmers:
        if in_tokens:
            raise UsageError(in_tokens[0], "it for a classifier of 6-mers", "window_bp")
        return coding, training
    if in_bp and not in_bp[0].startswith("--"):
        raise UsageError(in_bp[0], "it for a classifier whose tokens are no 6-mers", "window_tokens")
    return coding, replace(training, window_tokens=coding.window_tokens)


def warn_of_blank(model: Any, ranks: Any, reads: Any) -> None:
    """Say where the classifier makes up its mind about a wholly masked read (the paper, Methods)."""
    import numpy as np
    import torch

    module, reader = train_module("measure.blank"), train_module("data.batches")
    with torch.inference_mode():
        batch = reader.evaluation_batch(reads, np.arange(min(module.BLANK_READS, len(reads))), 1500)
        worst = module.blank_divergence(model, batch.input_ids).tolist()
    names = [rank.name for rank in ranks]
    for warning in module.blank_warnings(dict(zip(names, worst, strict=True)), reads):
        print_error(warning)
