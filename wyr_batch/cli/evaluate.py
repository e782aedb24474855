"""`wyr-batch evaluate`."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import click

from wyr_batch.checks.files import write_whole
from wyr_batch.checks.outputs import Source
from wyr_batch.cli.log import set_up
from wyr_batch.cli.params import GroupedCommand, NamedPath
from wyr_batch.cli.streams import print_result
from wyr_batch.cli.train.common import coded, coding_of, given, train_module
from wyr_batch.errors import UsageError

logger = logging.getLogger(__name__)


GROUPS = {
    "Model": ("explanandum_dir", "explainer_dir", "randomised_explainer"),
    "Data": ("split", "max_reads", "null_share", "window_bp"),
    "Measurement": ("explained", "faithfulness_reads", "chimeras", "seed"),
    "Output": ("output",),
    "Message": ("quiet", "debug", "help"),
}


@click.command("evaluate", cls=GroupedCommand, groups=GROUPS)
@click.argument("data", type=NamedPath())
@click.option(
    "--explanandum", "explanandum_dir", required=True, type=NamedPath(), help="Folder of the classifier to explain."
)
@click.option(
    "--explainer", "explainer_dir", required=True, type=NamedPath(), help="Folder of the Explainer to measure."
)
@click.option("-o", "--output", type=NamedPath(), help="Folder to write the results, tables and figures to.")
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "train"]),
    default="test",
    help="Part of the data to measure on.",
)
@click.option(
    "--explain",
    "explained",
    type=click.Choice(["predicted", "labels"]),
    default="predicted",
    help="Explain the classes called on the plain read, or the true labels.",
)
@click.option(
    "--null-share",
    default=1.0,
    help="Share of the sequences without a label at the finest rank to use, from 0 to 1.",
)
@click.option("--max-reads", type=int, help="Number of reads or texts to measure on, drawn at random. [default: all]")
@click.option(
    "--window",
    "window_bp",
    default=1500,
    metavar="BP",
    help="Use at most this much of each read or text: bases of 6-mers, else tokens, of which all that the classifier "
    "takes is the default.",
)
@click.option(
    "--faithfulness-reads",
    default=500,
    help="Number of reads or texts whose tokens are hidden and shown step by step; 0 skips this.",
)
@click.option(
    "--chimeras",
    default=100,
    help="Number of chimeras for each rank, whose masks should lie in the half that is asked for; 0 skips this.",
)
@click.option(
    "--randomised-explainer",
    type=NamedPath(),
    help="Compare with this Explainer, trained by `wyr-batch train explainer --randomise`, as a sanity check.",
)
@click.option("--seed", default=0, help="Seed for everything drawn at random.")
@click.option("-q", "--quiet", is_flag=True, help="Show errors only.")
@click.option("--debug", is_flag=True, help="Show a traceback on errors.")
def command(
    data: Path,
    explanandum_dir: Path,
    explainer_dir: Path,
    output: Path | None,
    split: str,
    explained: str,
    null_share: float,
    max_reads: int | None,
    window_bp: int,
    faithfulness_reads: int,
    chimeras: int,
    randomised_explainer: Path | None,
    seed: int,
    quiet: bool,
    debug: bool,
) -> None:
    """Measure how well masked reads keep the call and inverted masks lose it: the paper's Table 1 and figures.

    DATA is what `wyr-batch train prepare` wrote of reads, texts or proteins. JSON goes to stdout; with -o the folder
    gets evaluation.json, evaluation.md and figures/.

    \b
    wyr-batch evaluate --explanandum explanandum --explainer explainer markers.parquet -o evaluation
    wyr-batch evaluate --explanandum explanandum --explainer explainer markers.parquet --split validation
    """
    set_up(quiet, False, None)
    config = train_module("config").EvaluationConfig(
        explained,
        window_bp,
        faithfulness_reads,
        seed=seed,
        null_share=null_share,
        max_reads=max_reads,
        chimeras=chimeras,
    )
    if randomised_explainer and not faithfulness_reads:
        raise UsageError(
            "--randomised-explainer", "--faithfulness-reads 0 as well", "1 or more: those reads are compared"
        )
    if output:
        sources = [Source("DATA", data), Source("--explanandum", explanandum_dir), Source("--explainer", explainer_dir)]
        if randomised_explainer:
            sources.append(Source("--randomised-explainer", randomised_explainer))
        train_module("places").check_evaluation_folder(output, sources)
        train_module("measure.pages.figures").check_matplotlib()
    module, labelled = (train_module(name) for name in ("measure.evaluate", "data.labelled"))
    from wyr_batch.models.checkpoints import load_explainer, load_explanandum
    from wyr_batch.models.explainer import check_pair

    explanandum, ranks = load_explanandum(explanandum_dir)
    explainer = load_explainer(explainer_dir)
    check_pair(explanandum, explainer, f"--explainer {explainer_dir}")
    randomised = load_explainer(randomised_explainer) if randomised_explainer else None
    if randomised is not None:
        check_pair(explanandum, randomised, f"--randomised-explainer {randomised_explainer}")
    coding = coding_of(explanandum, window_bp if given("window_bp") else None)
    table = labelled.read_table(data)
    labelled.check_input(table, coding.kind, data)
    reads = labelled.load_reads(table, ranks, split, config.null_share, headers=True, source=data)
    if config.max_reads is not None:
        reads = reads.sample(config.max_reads, config.seed)
    reads = coded(reads, coding, data)
    what = {"reads": "reads", "text": "texts"}.get(coding.kind, coding.kind)
    logger.info("%s: %s %s of the %s part", data, f"{len(reads):,}", what, split)
    result = {
        "split": split,
        "null_share": config.null_share,
        **module.evaluate(explanandum, explainer, ranks, reads, config, randomised),
    }
    for warning in train_module("measure.blank").blank_warnings(result["blank"], reads):
        logger.warning("%s", warning)
    print_result(json_text({name: value for name, value in result.items() if name != "figure_data"}, indent=2))
    if output:
        write(result, output)


def json_text(content: Any, indent: int) -> str:
    """Return JSON text; JSON has no NaN: what could not be measured is null."""

    def without_nan(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: without_nan(item) for name, item in value.items()}
        if isinstance(value, list):
            return [without_nan(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(without_nan(content), indent=indent, allow_nan=False)


def write(result: dict[str, Any], folder: Path) -> None:
    """Write evaluation.json, evaluation.md and figures/ into `folder`. Raises: OutputError."""
    with train_module("places").writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "evaluation.json", json_text(result, indent=1) + "\n")
    write_whole(folder / "evaluation.md", train_module("measure.pages.tables").markdown(result))
    figures = train_module("measure.pages.figures").draw(result, folder / "figures")
    logger.info("%s: evaluation.json, evaluation.md and %d figures", folder, len(figures))
