"""`wyr-batch run`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from wyr_batch.checks.files import shown_path
from wyr_batch.cli.params import GroupedCommand, NamedPath
from wyr_batch.engines.base import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS, TORCH_GPU_BATCH_TOKENS
from wyr_batch.errors import UsageError
from wyr_batch.job.config import MASK_DTYPES, RunConfig
from wyr_batch.rows.parts import PART_S

_GROUPS = {
    "Input": ("infile_list", "max_reads", "min_length", "paired", "interleaved", "window_bp", "overlap_bp"),
    "Text input": ("text_column", "pair_column", "id_column"),
    "Model": ("model", "device", "runtime", "dtype", "explain", "confidence"),
    "Output": (
        "output",
        "resume",
        "overwrite",
        "mask_dtype",
        "rank_masks",
        "top_k",
        "sequences",
        "no_masked_calls",
        "report_path",
        "json_path",
        "part_s",
    ),
    "Speed": ("threads", "max_batch_tokens"),
    "Cluster": ("ray",),
    "Message": ("log_path", "quiet", "verbose", "debug", "help"),
}


@click.command("run", cls=GroupedCommand, groups=_GROUPS)
@click.argument("files", nargs=-1, metavar="FILES...")
@click.option("-X", "--infile-list", type=NamedPath(), help="Read more FILES from this list, one name per line.")
@click.option(
    "-o", "--output", required=True, help="Parquet file to write. A folder, or a name ending in /, gets a set of files."
)
@click.option("-m", "--model", type=NamedPath(), help="Bundle to use. [default: the built-in starter]")
@click.option("-x", "--device", default="auto", help="One of auto, cpu, cuda (the first GPU), cuda:N, cuda:all.")
@click.option(
    "--runtime",
    type=click.Choice(["auto", "onnx", "tensorrt", "openvino", "torch"]),
    default="auto",
    help="Library that runs the model.",
)
@click.option(
    "--dtype", default="auto", help="Precision. auto is float32 on a CPU, and float16 on a GPU if the bundle has it."
)
@click.option("-t", "--threads", type=int, help="CPU threads to use. [default: all this process may use]")
@click.option(
    "-b",
    "--max-batch-tokens",
    type=int,
    default=0,
    show_default=f"{CPU_BATCH_TOKENS} on a CPU, {GPU_BATCH_TOKENS} on a GPU, {TORCH_GPU_BATCH_TOKENS} there with torch",
    help="Tokens per batch, padding included; lower it to save memory. A read of 1,500 bp has 251.",
)
@click.option("--mask-dtype", type=click.Choice(MASK_DTYPES), default="float32", help="Type of the mask values.")
@click.option("--rank-masks", is_flag=True, help="Also write one mask column per rank.")
@click.option("-k", "--top-k", type=int, default=1, help="Also write the best K labels per rank, if K is 2 or more.")
@click.option("--sequences", is_flag=True, help="Also write the bases of each read, for pictures and tracks.")
@click.option(
    "--no-masked-calls",
    is_flag=True,
    help="Do not classify the masked reads; twice as fast, and without the columns RANK_masked.",
)
@click.option("--confidence", type=float, default=0.0, help="Leave out calls with a lower probability.")
@click.option(
    "--explain",
    multiple=True,
    metavar="predicted|RANK=LABEL",
    help="Explain this class instead of the predicted one; once per rank.",
)
@click.option(
    "--window", "window_bp", type=int, metavar="BP", help="Cut longer reads into windows. [default: the bundle's]"
)
@click.option(
    "--overlap", "overlap_bp", type=int, metavar="BP", help="Overlap of windows. [default: an eighth of the window]"
)
@click.option("-n", "--max-reads", type=int, help="Stop after this many reads; a pair is two.")
@click.option("--min-length", type=int, default=0, metavar="BP", help="Do not explain shorter reads.")
@click.option("--paired", is_flag=True, help="FILES are pairs of mates: R1 R2 [R1 R2 ...].")
@click.option("--interleaved", is_flag=True, help="Mates alternate within each file.")
@click.option(
    "--text-column",
    metavar="NAME",
    help="Column of the texts. [default: text, else sentence, else the only column of strings]",
)
@click.option("--pair-column", metavar="NAME", help="Column of the second texts, for a model of pairs.")
@click.option("--id-column", metavar="NAME", help="Column of the names. [default: the rows are numbered]")
@click.option("--resume", is_flag=True, help="Continue an interrupted run of the same command.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.option("--part-seconds", "part_s", default=PART_S, help="Longest time between durable writes.")
@click.option(
    "--ray",
    is_flag=False,
    flag_value="",
    metavar="[ADDRESS]",
    help="Run on a Ray cluster: auto, local, HOST:PORT or ray://HOST:PORT. Without ADDRESS, on the cluster that Ray "
    "finds, or a new one on this machine.",
)
@click.option(
    "--report",
    "report_path",
    type=NamedPath(),
    help="Write the reads by clade to this file, in the style of Kraken's report; for MultiQC, SAMPLE.report.txt.",
)
@click.option("--json", "json_path", type=NamedPath(), help="Write a summary of the run to this file.")
@click.option("--log", "log_path", type=NamedPath(), help="Also append messages to this file.")
@click.option("-q", "--quiet", is_flag=True, help="Show errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Show more messages.")
@click.option("--debug", is_flag=True, help="Show a traceback on errors, and run in a single thread.")
def command(
    files: tuple[str, ...],
    infile_list: Path | None,
    output: str,
    report_path: Path | None,
    json_path: Path | None,
    log_path: Path | None,
    quiet: bool,
    verbose: bool,
    debug: bool,
    **options: Any,
) -> int:
    """Find out which part of each read made the call.

    FILES are FASTQ, FASTA, SAM, BAM or CRAM, plain or compressed with gzip, bgzip or zstd, or - for standard input.
    For a model of texts they are texts as lines, CSV, TSV, JSONL or Parquet, or folders that datasets' save_to_disk
    wrote. Every read or text becomes one row, in input order. If a run is interrupted, repeat the command with
    --resume. Exit code 3 means that the run finished but some reads failed; their rows say so.

    \b
    wyr-batch run reads.fastq.gz -o masks.parquet
    samtools view -u reads.bam | wyr-batch run - -m my_bundle --mask-dtype uint8 -o masks.parquet
    """
    from wyr_batch.api import run
    from wyr_batch.checks.files import write_whole
    from wyr_batch.cli import log
    from wyr_batch.cli.interrupt import stop_on_signal
    from wyr_batch.host import keep_freed_memory
    from wyr_batch.job.outputs import check_run_outputs, summary_json
    from wyr_batch.reads.stream import input_list

    if quiet and verbose:
        raise UsageError("-q", "-v as well", "one of the two")
    if output in ("", "-"):
        raise UsageError("-o", f"{output!r}", "the name of a file or folder", "Parquet cannot be written to a stream.")
    options["threads"] = options["threads"] or 0
    config = RunConfig(
        inputs=input_list(files, infile_list), output=Path(output), dataset=output.endswith(os.sep), **options
    )
    check_run_outputs(config, json_path=json_path, report_path=report_path, log_path=log_path, infile_list=infile_list)
    log.set_up(quiet, verbose, log_path)
    keep_freed_memory()
    with stop_on_signal() as check:
        stats = run(config, progress=not quiet, overlapped=not debug, check=check)
    log.logger.info("%s -> %s", stats.closing_line(), shown_path(config.output))
    for reason, n in stats.counts.failures.most_common():
        log.logger.warning("%s %s failed: %s", f"{n:,}", stats.kind.rows, reason)
    if report_path:
        from wyr_batch.convert.conversion import Conversion
        from wyr_batch.convert.kreport import write_kreport
        from wyr_batch.masks.file import open_masks

        write_kreport(Conversion(open_masks(config.output), (), report_path))
    if json_path:
        write_whole(json_path, summary_json(stats, config))
    return 3 if stats.n_failed else 0
