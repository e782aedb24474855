"""`wyr-batch view`."""

from __future__ import annotations

import io
import logging
import math
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wyr_batch.checks.files import exists, shown_path, write_whole
from wyr_batch.checks.numbers import check_numbers
from wyr_batch.checks.outputs import Output, Source, check_outputs
from wyr_batch.cli.log import set_up
from wyr_batch.cli.params import NamedPath
from wyr_batch.cli.streams import print_result
from wyr_batch.errors import InputError, OutputError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from wyr_batch.draw.read import DrawnRead
    from wyr_batch.masks.file import MaskFile

logger = logging.getLogger(__name__)

_MAX_READS, _LEAST_COLUMNS, _SHOWN_NAMES = 10, 20, 8
_SIMPLER = str.maketrans({"→": ">", "✓": "=", "✗": "!"} | dict(zip("▁▂▃▄▅▆▇█", "01234567", strict=True)))


@click.command("view")
@click.argument("masks", type=NamedPath())
@click.argument("read_ids", nargs=-1, metavar="[READ_ID]...")
@click.option("-n", "--max-reads", type=int, help=f"Show this many rows from the first. [default: {_MAX_READS}]")
@click.option(
    "--reads", multiple=True, metavar="FILE", help="File of the reads, if it is not where it was; once per file."
)
@click.option("--rank", help="Show the mask of this rank; the run had --rank-masks.")
@click.option("--width", type=int, metavar="COLUMNS", help="Width of the lines. [default: the terminal's, else 80]")
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    help="Colours; auto has them on a terminal, unless NO_COLOR is set.",
)
@click.option("--html", "html_path", type=NamedPath(), help="Write one read to this file, as an HTML page.")
@click.option("--svg", "svg_path", type=NamedPath(), help="Write one read to this file, as an SVG picture.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@click.option("--debug", is_flag=True, help="Show a traceback on errors.")
def command(
    masks: Path,
    read_ids: tuple[str, ...],
    max_reads: int | None,
    reads: tuple[str, ...],
    rank: str | None,
    width: int | None,
    color: str,
    html_path: Path | None,
    svg_path: Path | None,
    overwrite: bool,
    debug: bool,
) -> None:
    """Show reads, proteins or texts coloured by their masks.

    MASKS is a Parquet file that `run` wrote, or a folder of such files. Without READ_ID, its first rows are shown. A
    READ_ID with mates shows both; READ_ID/1 and READ_ID/2 show one.

    Segments are underlined, without colours they are in brackets. Above the bases stand the calls on the plain and on
    the masked read. If the bases cannot be found, the masks are drawn as bars. A text runs on from line to line, each
    with the number of its first character.

    \b
    wyr-batch view masks.parquet
    wyr-batch view masks.parquet read0009 --svg read0009.svg
    """
    from wyr_batch.masks.file import open_masks
    from wyr_batch.masks.find import drawn_reads, find_rows

    set_up(False, False, None)
    check_numbers([("--max-reads", max_reads, 1, math.inf), ("--width", width, _LEAST_COLUMNS, math.inf)])
    if read_ids and max_reads is not None:
        raise UsageError("--max-reads", "READ_ID as well", "one of the two")
    files = {flag: path for flag, path in (("--html", html_path), ("--svg", svg_path)) if path}
    opened = open_masks(masks)
    _check_files(files, opened, reads, overwrite)
    _check_rank(rank, opened)
    first_rows = range(min(max_reads or _MAX_READS, opened.n_rows))
    numbers, missing = find_rows(opened, read_ids) if read_ids else (first_rows, [])
    drawn = drawn_reads(opened, numbers, reads, rank, without_bases=partial(_say_without, opened))
    if missing and (files or not numbers):
        raise _not_there(missing, opened)
    if files and len(numbers) != 1:
        advice = "Name one READ_ID; of mates, READ_ID/1 or READ_ID/2."
        raise UsageError(next(iter(files)), f"{len(numbers):,} rows to draw", "one", advice)
    if not numbers:
        logger.warning("%s: no rows", opened.shown)
        return
    first = next(drawn)  # what keeps reads from being drawn is said before a pager has the terminal
    if files:
        _write(first, files)
    else:
        _show(chain([first], drawn), width, color)
    if missing:
        raise _not_there(missing, opened)


def _check_files(files: Mapping[str, Path], masks: MaskFile, reads: Sequence[str], overwrite: bool) -> None:
    """Raise UsageError or OutputError unless each file may be written."""
    inputs = [*reads, *masks.footer.get("inputs", ())]
    sources = [Source("MASKS", masks.path), *(Source("the reads", path) for path in inputs)]
    check_outputs([Output(flag, path) for flag, path in files.items()], sources)
    for flag, path in files.items():
        if not overwrite and exists(path, OutputError):
            where = f"{flag} {shown_path(path)}"
            raise OutputError(where, "a file that exists", "a new name", "Use --overwrite to replace it.")


def _check_rank(rank: str | None, masks: MaskFile) -> None:
    """Raise UsageError unless the file has the masks of a rank."""
    if rank is not None and f"mask_{rank}" not in masks:
        there = [name for name in masks.ranks if f"mask_{name}" in masks]
        expected = f"one of {', '.join(there)}" if there else "masks of the ranks, which this file has not"
        raise UsageError("--rank", rank, expected, "" if there else "Run again with --rank-masks.")


def _say_without(masks: MaskFile, reason: InputError) -> None:
    logger.warning("%s Drawn without %s.", reason, masks.kind.content)


def _not_there(names: Sequence[str], masks: MaskFile) -> InputError:
    shown = ", ".join(names[:_SHOWN_NAMES])
    more = f" and {len(names) - _SHOWN_NAMES:,} more" if len(names) > _SHOWN_NAMES else ""
    return InputError(
        masks.shown, f"no {masks.kind.row} {shown}{more}", f"names of its {masks.n_rows:,} rows", "Check the names."
    )


def _write(read: DrawnRead, files: Mapping[str, Path]) -> None:
    """Write a read as HTML, SVG or both. Raises: OutputError."""
    from wyr_batch.draw.html import page_html
    from wyr_batch.draw.svg import read_svg

    for flag, path in files.items():
        write_whole(path, page_html(read) if flag == "--html" else read_svg(read))
        logger.info("%s -> %s", read.title, shown_path(path))


def _show(reads: Iterable[DrawnRead], width: int | None, color: str) -> None:
    """Print reads; on a terminal, through a pager."""
    from wyr_batch.draw.terminal import read_text

    is_terminal = sys.stdout.isatty()
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb" or not is_terminal
    coloured = color == "always" or (color == "auto" and not plain)
    columns = width or max(shutil.get_terminal_size((80, 24)).columns, _LEAST_COLUMNS)
    console = _console(columns) if coloured else None

    def page(read: DrawnRead) -> str:
        text = read_text(read, columns, coloured)
        if console is None:
            return _encodable(text.plain) + "\n"
        with console.capture() as captured:
            console.print(text, soft_wrap=True)
        return _encodable(captured.get())

    if not is_terminal:
        for i, read in enumerate(reads):
            print_result("\n" * (i > 0) + page(read).removesuffix("\n"), color=coloured)
        return
    flags = os.environ.get("LESS", "-F -X")
    os.environ["LESS"] = flags if "R" in flags else f"{flags} -R"
    click.echo_via_pager(("\n" * (i > 0) + page(read) for i, read in enumerate(reads)), color=coloured)


def _console(columns: int) -> Console:
    """Return a console with the terminal's colours; at least some, whatever it says of itself."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=columns, force_terminal=True, no_color=False, highlight=False)
    if console.color_system is not None:
        return console
    return Console(file=io.StringIO(), width=columns, force_terminal=True, no_color=False, color_system="256")


def _encodable(text: str) -> str:
    """Return text in the letters that standard output has."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_SIMPLER).encode(encoding, "backslashreplace").decode(encoding)
    return text
