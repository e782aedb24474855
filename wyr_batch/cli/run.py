"""`wyr-batch run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from wyr_batch.config import DEFAULT_BATCH_TOKENS, MASK_DTYPES, RunConfig


@click.command("run")
@click.argument("files", nargs=-1, required=True, metavar="FILES...")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Parquet file to write.")
@click.option(
    "-m", "--model", type=click.Path(path_type=Path), help="Bundle directory. [default: the built-in starter]"
)
@click.option("-x", "--device", default="auto", help="auto or cpu. What is not there is an error.")
@click.option(
    "--runtime", type=click.Choice(["auto", "onnx", "openvino", "torch"]), default="auto", help="What runs the graph."
)
@click.option("--dtype", default="auto", help="Precision, one that the bundle holds.")
@click.option("-t", "--threads", type=int, help="Threads for inference. [default: the CPUs this process may use]")
@click.option(
    "-b",
    "--max-batch-tokens",
    type=int,
    default=DEFAULT_BATCH_TOKENS,
    help="Padded tokens per batch: what memory depends on. A 1,500 bp read has 251.",
)
@click.option("--mask-dtype", type=click.Choice(MASK_DTYPES), default="float32", help="uint8 is round(255 mask).")
@click.option("--rank-masks", is_flag=True, help="One mask column per rank as well.")
@click.option("-k", "--top-k", type=int, default=1, help="With 2 or more: a column of the best k labels per rank.")
@click.option("--confidence", type=float, default=0.0, help="Calls with a lower probability are null.")
@click.option(
    "--explain",
    multiple=True,
    metavar="predicted|RANK=LABEL",
    help="Class whose mask is wanted; may be given once per rank. [default: predicted]",
)
@click.option("--window", "window_bp", type=int, metavar="BP", help="Cut longer reads. [default: the bundle's]")
@click.option("--overlap", "overlap_bp", type=int, metavar="BP", help="Of windows. [default: an eighth of the window]")
@click.option("-n", "--max-reads", type=int, help="Stop after so many reads.")
@click.option("--min-length", type=int, default=0, metavar="BP", help="Shorter reads are rows without a mask.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write a summary of the run.")
@click.option("--log", "log_path", type=click.Path(), help="Write messages to a file as well.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only.")
@click.option("-v", "--verbose", is_flag=True, help="More messages.")
@click.option("--debug", is_flag=True, help="Show a traceback with an error, and run in a single thread.")
def command(
    files: tuple[str, ...],
    json_path: Path | None,
    log_path: str | None,
    quiet: bool,
    verbose: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Explain reads: which part of each made the call.

    FILES are FASTQ, FASTA, SAM, BAM or CRAM, plain or packed with gzip, bgzip or zstd (found by content), or - for
    standard input. One row per read is written, in input order, whatever happens to it.

    \b
    wyr-batch run reads.fastq.gz -o masks.parquet
    samtools view -u reads.bam | wyr-batch run - -m my_bundle --mask-dtype uint8 -o masks.parquet
    """
    from wyr_batch import log
    from wyr_batch.api import run, summary_json

    log.set_up(quiet, verbose, log_path)
    options["threads"] = options["threads"] or 0
    config = RunConfig(inputs=files, **options)
    stats = run(config, progress=not quiet, overlapped=not debug)
    if json_path:
        json_path.write_text(summary_json(stats, config))
    log.logger.info("%s -> %s", stats.closing_line(), config.output)
