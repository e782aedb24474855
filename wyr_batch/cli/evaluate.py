"""`wyr-batch evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from wyr_batch.cli.train import train_module
from wyr_batch.log import logger, set_up


@click.command("evaluate")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--explanandum", "explanandum_dir", required=True, type=click.Path(path_type=Path))
@click.option("--explainer", "explainer_dir", required=True, type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(["test", "validation", "train"]), default="test")
@click.option("--null-share", default=1.0, help="Share of the reads without a finest label to use.")
@click.option("--window", "window_bp", default=1500, metavar="BP", help="Each read's first so many bases.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only.")
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
def command(
    data: Path,
    explanandum_dir: Path,
    explainer_dir: Path,
    split: str,
    null_share: float,
    window_bp: int,
    quiet: bool,
    debug: bool,
) -> None:
    """Measure, as JSON, how well masked reads keep the call and inverted masks lose it (the paper's Table 1).

    DATA is what `wyr-batch train prepare` wrote.

    \b
    wyr-batch evaluate --explanandum explanandum --explainer explainer markers.parquet
    wyr-batch evaluate --explanandum explanandum --explainer explainer markers.parquet --split validation
    """
    set_up(quiet, False, None)
    module, reader = train_module("evaluate"), train_module("data")
    from wyr_batch.models.checkpoints import load_explainer, load_explanandum

    explanandum, ranks = load_explanandum(explanandum_dir)
    explainer = load_explainer(explainer_dir)
    reads = reader.load_reads(reader.read_table(data), ranks, split, null_share)
    logger.info("%s: %s reads of the %s part", data, f"{len(reads):,}", split)
    result = module.evaluate(explanandum, explainer, ranks, reads, window_bp)
    click.echo(json.dumps({"split": split, "null_share": null_share, **result}, indent=2))
