"""`wyr-batch train`: prepare, explanandum, explainer. The work is in `wyr_batch.train`, imported when it is called."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from wyr_batch.cli.params import NamedPath
from wyr_batch.cli.streams import print_error, print_result
from wyr_batch.errors import MissingExtraError, UsageError
from wyr_batch.outputs import Source

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


def given(*names: str) -> list[str]:
    """Return the flags of those of these parameters that the user gave, in the command line or the environment."""
    context = click.get_current_context()
    return [
        param.opts[-1]
        for param in context.command.params
        if param.name in names and context.get_parameter_source(param.name) is not ParameterSource.DEFAULT
    ]


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


def _loop(options: dict[str, Any]) -> Any:
    """Take the loop's options out of `options` and return a LoopConfig."""
    options.pop("debug")
    numbers = ("steps", "evaluate_every", "warmup_steps", "patience", "gradient_accumulation", "seed", "threads")
    names = (*numbers, "learning_rate", "weight_decay", "bf16")
    return train_module("config").LoopConfig(**{name: options.pop(name) for name in names})


@command.command("prepare")
@click.argument("sources", type=NamedPath(), nargs=-1)
@click.option("-o", "--output", required=True, type=NamedPath(), help="Parquet file to write.")
@click.option("--taxdump", type=NamedPath(), help="NCBI taxonomy dump: directory, .tar.gz or .zip.")
@click.option("--taxids", type=NamedPath(), help="Table of FASTA ids and taxids; accession2taxid fits.")
@click.option("--ranks", default="superkingdom,phylum,genus", help="Coarsest first.")
@click.option("--incomplete", type=click.Choice(["drop", "null"]), default="drop", help="Sequences lacking a rank.")
@click.option("--split", default="stratified", metavar="stratified|hash|COLUMN", help="How to deal sequences out.")
@click.option("--test-share", default=0.02, help="Share of the test part (stratified).")
@click.option("--validation-share", default=0.1, help="Share of the validation part (stratified).")
@click.option("--seed", default=0, help="Of the stratified split.")
@click.option("--sequence-column", default="sequence", help="Of a table.")
@click.option("--taxid-column", help="Of a table; left out: its columns named as the ranks hold labels.")
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
def prepare(
    sources: tuple[Path, ...],
    output: Path,
    taxdump: Path | None,
    taxids: Path | None,
    ranks: str,
    incomplete: str,
    split: str,
    test_share: float,
    validation_share: float,
    seed: int,
    sequence_column: str,
    taxid_column: str | None,
    debug: bool,
) -> None:
    """Write labelled sequences as one training Parquet, split into training, validation and test part.

    SOURCES are FASTA files with taxids (--taxids, or `>TAXID INDEX` headers), BERTax trees (*_fragments.json beside
    *_species_picked.txt), or Parquet, CSV and TSV tables. Without one, or for a markers.fasta without --taxdump, it is
    the marker set of Debian's metaphlan2-data (downloaded with apt), labelled by PyPI's taxoniq, always split by hash.

    \b
    wyr-batch train prepare -o markers.parquet
    wyr-batch train prepare genomes.fasta --taxids ids.tsv --taxdump taxdump.tar.gz -o genomes.parquet
    wyr-batch train prepare bertax/ --taxdump taxdump.tar.gz -o bertax.parquet
    wyr-batch train prepare reads.csv --split part -o reads.parquet
    """
    module = train_module("prepare")
    names = tuple(name.strip() for name in ranks.split(","))
    kind = split if split in ("stratified", "hash") else "column"
    rule = module.SplitRule(kind, test_share, validation_share, seed)
    shares = given("test_share", "validation_share", "seed")
    if not sources or (len(sources) == 1 and sources[0].name == "markers.fasta" and taxdump is None):
        other = shares + given("taxids", "sequence_column", "taxid_column")
        fixed = {"ranks": names == module.RANKS, "split": split == "hash", "incomplete": incomplete == "null"}
        other += given(*(name for name, is_so in fixed.items() if not is_so))
        if other:
            raise UsageError(
                f"{other[0]}: got it for the marker set, which has the ranks {', '.join(module.RANKS)}, null labels "
                "and a split by hash, expected SOURCES of your own. A FASTA with taxids also needs --taxdump."
            )
        counts = train_module("markers").prepare_markers(sources[0] if sources else None, output)
    else:
        if shares and kind != "stratified":
            raise UsageError(f"{shares[0]}: got it with --split {split}, expected it with --split stratified only.")
        counts = module.prepare_sources(
            sources,
            output,
            names,
            rule,
            incomplete,
            taxdump,
            taxids,
            module.Columns(sequence_column, taxid_column),
            split if kind == "column" else None,
        )
    print_result(json.dumps(counts.to_json(), indent=2))


@command.command("explanandum")
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
def explanandum(
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
    configs, loop = train_module("config"), _loop(options)
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
    module, reader, loops = train_module("explanandum"), train_module("data"), train_module("loop")
    loops.set_threads(loop.threads)
    table = reader.read_table(data)
    ranks = reader.choose_ranks(table, train_module("prepare").rank_names(table), chosen.min_sequences, data)
    with loops.said_clearly(output):
        module.train_explanandum(
            ranks,
            reader.load_reads(table, ranks, "train", chosen.null_share, source=data),
            reader.load_reads(table, ranks, "validation", chosen.null_share, source=data).sample(validation_reads),
            output,
            config,
            loop,
            resume=resume,
            start_from=start_from,
            provenance={"min_sequences": min_sequences, "null_share": null_share},
        )
    print_error(f"{output}: explanandum trained")


@command.command("explainer")
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
def explainer(
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
    configs, loop = train_module("config"), _loop(options)
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
    module, reader, loops = train_module("explainer"), train_module("data"), train_module("loop")
    from wyr_batch.models.checkpoints import load_explanandum

    loops.set_threads(loop.threads)
    model, ranks = load_explanandum(explanandum_dir)
    config.check_ranks(len(ranks))
    table = reader.read_table(data)
    training = reader.load_reads(table, ranks, "train", chosen.null_share, source=data)
    validation = reader.load_reads(table, ranks, "validation", chosen.null_share, source=data)
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

    module, reader = train_module("evaluate"), train_module("data")
    with torch.inference_mode():
        batch = reader.evaluation_batch(reads, np.arange(min(16, len(reads))), 1500)
        worst = module.blank_divergence(model, batch.input_ids).tolist()
    for rank, divergence in zip(ranks, worst, strict=True):
        if divergence > module.BLANK_LIMIT:
            print_error(module.blank_warning(rank.name, divergence))
