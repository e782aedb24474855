"""`wyr-batch evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from wyr_batch.cli.train import train_module
from wyr_batch.log import logger, set_up


@click.command("evaluate")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--explanandum", "explanandum_dir", required=True, type=click.Path(path_type=Path))
@click.option("--explainer", "explainer_dir", required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder for JSON, Markdown tables and figures.")
@click.option("--split", type=click.Choice(["test", "validation", "train"]), default="test")
@click.option("--explain", "explained", type=click.Choice(["predicted", "labels"]), default="predicted")
@click.option("--null-share", default=1.0, help="Share of the reads without a finest label to use.")
@click.option("--max-reads", type=int, help="Draw so many reads at random. Left out: all.")
@click.option("--window", "window_bp", default=1500, metavar="BP", help="Each read's first so many bases.")
@click.option("--faithfulness-reads", default=500, help="Reads to hide and show tokens of, step by step. 0: none.")
@click.option(
    "--randomised-explainer",
    type=click.Path(path_type=Path),
    help="Made by train explainer --randomise: for the sanity check.",
)
@click.option("--seed", default=0, help="Of what is drawn at random.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only.")
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
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
    randomised_explainer: Path | None,
    seed: int,
    quiet: bool,
    debug: bool,
) -> None:
    """Measure how well masked reads keep the call and inverted masks lose it: the paper's Table 1 and figures.

    DATA is what `wyr-batch train prepare` wrote. JSON goes to stdout; with -o the folder gets evaluation.json,
    evaluation.md and figures/.

    \b
    wyr-batch evaluate --explanandum explanandum --explainer explainer markers.parquet -o evaluation
    wyr-batch evaluate --explanandum explanandum --explainer explainer markers.parquet --split validation
    """
    set_up(quiet, False, None)
    module, reader = train_module("evaluate"), train_module("data")
    from wyr_batch.models.checkpoints import load_explainer, load_explanandum

    explanandum, ranks = load_explanandum(explanandum_dir)
    explainer = load_explainer(explainer_dir)
    randomised = load_explainer(randomised_explainer) if randomised_explainer else None
    reads = reader.load_reads(reader.read_table(data), ranks, split, null_share, headers=True)
    if max_reads:
        reads = reads.sample(max_reads, seed)
    logger.info("%s: %s reads of the %s part", data, f"{len(reads):,}", split)
    config = module.EvaluationConfig(explained, window_bp, faithfulness_reads, seed=seed)
    result = {
        "split": split,
        "null_share": null_share,
        **module.evaluate(explanandum, explainer, ranks, reads, config, randomised),
    }
    for rank, divergence in result["blank"].items():
        if divergence > module.BLANK_LIMIT:
            logger.warning("%s", module.blank_warning(rank, divergence))
    if output:
        write(result, output)
    click.echo(json.dumps({name: value for name, value in result.items() if name != "figure_data"}, indent=2))


def write(result: dict[str, Any], folder: Path) -> None:
    """Write evaluation.json, evaluation.md and figures/ into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "evaluation.md").write_text(train_module("tables").markdown(result))
    figures = train_module("figures").draw(result, folder / "figures")
    logger.info("%s: evaluation.json, evaluation.md and %d figures", folder, len(figures))
