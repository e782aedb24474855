"""`wyr-batch run`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from wyr_batch.cli.params import NamedPath
from wyr_batch.config import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS, MASK_DTYPES, PART_S, RunConfig
from wyr_batch.errors import UsageError
from wyr_batch.files import shown_path


@click.command("run")
@click.argument("files", nargs=-1, metavar="FILES...")
@click.option("-X", "--infile-list", type=NamedPath(), help="Text file of more FILES, one a line.")
@click.option(
    "-o", "--output", required=True, help="Parquet file to write; a directory, or a name that ends in /, gets parts."
)
@click.option("-m", "--model", type=NamedPath(), help="Bundle directory. [default: the built-in starter]")
@click.option(
    "-x",
    "--device",
    default="auto",
    help="auto, cpu, cuda (the first GPU), cuda:N or cuda:all; an error if not there.",
)
@click.option(
    "--runtime",
    type=click.Choice(["auto", "onnx", "tensorrt", "openvino", "torch"]),
    default="auto",
    help="What runs the graph.",
)
@click.option(
    "--dtype",
    default="auto",
    help="Precision that the bundle holds; auto: float32, on a GPU float16 if proven.",
)
@click.option("-t", "--threads", type=int, help="Threads for inference. [default: the CPUs this process may use]")
@click.option(
    "-b",
    "--max-batch-tokens",
    type=int,
    default=0,
    show_default=f"{CPU_BATCH_TOKENS} on a CPU, {GPU_BATCH_TOKENS} on a GPU",
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
@click.option("--paired", is_flag=True, help="FILES are mates: R1 R2, two at a time; rows alternate.")
@click.option("--interleaved", is_flag=True, help="Consecutive reads of a file are mates.")
@click.option("--resume", is_flag=True, help="Go on after what an earlier run of the same command finished.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.option(
    "--part-seconds", "part_s", default=PART_S, help="Bring rows to the disk at least so often: what a kill can lose."
)
@click.option(
    "--ray",
    is_flag=False,
    flag_value="",
    metavar="[ADDRESS]",
    help="Run on a Ray cluster: auto, local, HOST:PORT, ray://HOST:PORT; alone: the one that Ray finds, else a new one "
    "on this machine. Every -t CPUs (1) make a worker.",
)
@click.option("--json", "json_path", type=NamedPath(), help="Write a summary of the run.")
@click.option("--log", "log_path", type=NamedPath(), help="Write messages to a file as well.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only.")
@click.option("-v", "--verbose", is_flag=True, help="More messages.")
@click.option("--debug", is_flag=True, help="Show a traceback with an error, and run in a single thread.")
def command(
    files: tuple[str, ...],
    infile_list: Path | None,
    output: str,
    json_path: Path | None,
    log_path: Path | None,
    quiet: bool,
    verbose: bool,
    debug: bool,
    **options: Any,
) -> int:
    """Explain reads: which part of each made the call.

    FILES are FASTQ, FASTA, SAM, BAM or CRAM, plain or packed with gzip, bgzip or zstd (found by content), or - for
    standard input. One row per read is written, in input order, whatever happens to it. A run that was stopped or
    killed goes on with --resume. Exit code 3: finished, but some reads failed; they are rows of that status.

    \b
    wyr-batch run reads.fastq.gz -o masks.parquet
    samtools view -u reads.bam | wyr-batch run - -m my_bundle --mask-dtype uint8 -o masks.parquet
    """
    from wyr_batch import log
    from wyr_batch.api import check_run_outputs, run, summary_json
    from wyr_batch.files import write_whole
    from wyr_batch.inputs import input_list
    from wyr_batch.interrupt import gentle_end

    if quiet and verbose:
        raise UsageError("-q: got -v as well, expected one of the two.")
    if output in ("", "-"):
        raise UsageError(
            f"-o: got {output!r}, expected the name of a file or folder. Parquet cannot be written to a stream."
        )
    options["threads"] = options["threads"] or 0
    config = RunConfig(
        inputs=input_list(files, infile_list), output=Path(output), dataset=output.endswith(os.sep), **options
    )
    check_run_outputs(config, json_path=json_path, log_path=log_path, infile_list=infile_list)
    log.set_up(quiet, verbose, log_path)
    with gentle_end() as check:
        stats = run(config, progress=not quiet, overlapped=not debug, check=check)
    log.logger.info("%s -> %s", stats.closing_line(), shown_path(config.output))
    for reason, n in stats.counts.failures.most_common():
        log.logger.warning("%s reads failed: %s", f"{n:,}", reason)
    if json_path:
        write_whole(json_path, summary_json(stats, config))
    return 3 if stats.n_failed else 0
