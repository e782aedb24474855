"""`wyr-batch report`."""

from __future__ import annotations

from pathlib import Path

import click

from wyr_batch.cli.params import GroupedCommand, NamedPath

_GROUPS = {
    "Input": ("reads",),
    "Output": ("output", "json_path", "multiqc_path", "title", "overwrite"),
    "Message": ("quiet", "debug", "help"),
}


@click.command("report", cls=GroupedCommand, groups=_GROUPS)
@click.argument("masks", nargs=-1, required=True, type=NamedPath(), metavar="MASKS...")
@click.option("-o", "--output", required=True, type=NamedPath(), help="HTML file to write.")
@click.option("--json", "json_path", type=NamedPath(), help="Write the numbers of the report to this file.")
@click.option(
    "--multiqc",
    "multiqc_path",
    type=NamedPath(),
    help="Write a section for MultiQC to this file, whose name ends in _mqc.json.",
)
@click.option(
    "--reads",
    multiple=True,
    metavar="FILE",
    help="Take the bases from this file, once per input of the run. [default: where the inputs lay]",
)
@click.option("--title", help="Title of the page. [default: the names of the inputs]")
@click.option("--overwrite", is_flag=True, help="Replace existing outputs.")
@click.option("-q", "--quiet", is_flag=True, help="Show errors only.")
@click.option("--debug", is_flag=True, help="Show a traceback on errors.")
def command(
    masks: tuple[Path, ...],
    output: Path,
    json_path: Path | None,
    multiqc_path: Path | None,
    reads: tuple[str, ...],
    title: str | None,
    overwrite: bool,
    quiet: bool,
    debug: bool,
) -> None:
    """Show what is in masks as one HTML page: calls, how many of them the masks keep, figures, and some reads.

    MASKS are Parquet files that `run` wrote, or folders of such files; up to 8 of one kind (reads, proteins, texts) are
    compared side by side. The page needs no other file and loads nothing.

    \b
    wyr-batch report masks.parquet -o report.html
    wyr-batch report before.parquet after.parquet -o report.html --multiqc masks_mqc.json
    """
    import json
    import logging

    from wyr_batch.checks.files import shown_path, write_whole
    from wyr_batch.cli import log
    from wyr_batch.job.progress import Bar
    from wyr_batch.masks.file import open_masks
    from wyr_batch.report.data import gather
    from wyr_batch.report.multiqc import multiqc_json
    from wyr_batch.report.outputs import check_report_outputs
    from wyr_batch.report.page import page

    log.set_up(quiet, False, None)
    files = [open_masks(path) for path in masks]
    check_report_outputs(files, output, json_path, multiqc_path, reads, overwrite)
    with Bar(not quiet) as bar:
        data = gather(files, reads=reads, title=title, show=bar.show)
    write_whole(output, page(data))
    if json_path:
        write_whole(json_path, json.dumps(data, ensure_ascii=False, allow_nan=False) + "\n")
    if multiqc_path:
        write_whole(multiqc_path, multiqc_json(data))
    n_rows = sum(file.n_rows for file in files)
    logging.getLogger(__name__).info("%s -> %s", files[0].kind.count(n_rows), shown_path(output))
