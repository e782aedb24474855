"""`wyr-batch convert`."""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from wyr_batch.checks.files import is_file, shown_path
from wyr_batch.checks.outputs import FILE, TEXT, Output, Source, check_outputs
from wyr_batch.cli.interrupt import end_on_signal
from wyr_batch.cli.log import set_up
from wyr_batch.cli.params import GroupedCommand, NamedPath
from wyr_batch.errors import OutputError, UsageError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Format:
    """What `--to` can name.

    Attributes:
        module: in wyr_batch.convert; function: in it, called with a Conversion and the options by name.
        options: parameters of this command that the function takes; others are refused when they are given.
        is_text: may go to standard output, a device or a pipe.
    """

    module: str
    function: str
    options: tuple[str, ...] = ()
    is_text: bool = True


FORMATS = {
    "tsv": Format("tsv", "write_tsv"),
}

# Of every format.
_COMMON = ("masks", "to", "output", "reads", "overwrite", "quiet", "debug")

_GROUPS = {
    "Input": ("reads",),
    "Output": ("to", "output", "overwrite"),
    "Message": ("quiet", "debug", "help"),
}


@click.command("convert", cls=GroupedCommand, groups=_GROUPS)
@click.argument("masks", type=NamedPath())
@click.option("--to", required=True, type=click.Choice(list(FORMATS)), help="Format to write.")
@click.option("-o", "--output", default="-", type=NamedPath(), help="File to write; - is standard output.")
@click.option(
    "--reads",
    multiple=True,
    metavar="FILE",
    help="Where an input of the run lies now, if not where it lay; once per input, in the order of the run.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.option("-q", "--quiet", is_flag=True, help="Show errors only.")
@click.option("--debug", is_flag=True, help="Show a traceback on errors.")
def command(
    masks: Path,
    to: str,
    output: Path,
    reads: tuple[str, ...],
    overwrite: bool,
    quiet: bool,
    debug: bool,
    **options: Any,
) -> None:
    """Write masks in the format of another tool.

    MASKS is a Parquet file that `run` wrote, or a folder of its parts. Text formats go to standard output unless -o
    names a file; one whose name ends in .gz is compressed with bgzip.

    \b
    wyr-batch convert masks.parquet --to bed -o segments.bed
    wyr-batch convert masks.parquet --to tsv | less -S
    """
    form, context = FORMATS[to], click.get_current_context()
    for param in context.command.params:
        name = param.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in (*_COMMON, *form.options):
            users = ", ".join(key for key, other in FORMATS.items() if name in other.options)
            raise UsageError(param.opts[-1], f"--to {to}", f"{users}: the format that this option is for")
    from wyr_batch.convert.conversion import Conversion
    from wyr_batch.masks.file import open_masks

    opened = open_masks(masks)
    inputs = reads or tuple(opened.footer.get("inputs", ()))
    sources = [Source("MASKS", masks), *(Source("the input", path) for path in inputs)]
    check_convert_output(output, form, sources, overwrite)
    set_up(quiet, False, None)
    conversion = Conversion(opened, reads, output)
    write = getattr(importlib.import_module(f"wyr_batch.convert.{form.module}"), form.function)
    with end_on_signal():
        written = write(conversion, **{name: options[name] for name in form.options})
    logger.info(
        "%s reads -> %s %s in %s",
        f"{written.n_reads:,}",
        f"{written.n_records:,}",
        written.what,
        "standard output" if output == Path("-") else shown_path(output),
    )


def check_convert_output(output: Path, form: Format, sources: list[Source], overwrite: bool) -> None:
    """Refuse an output that would harm something, or that is no place for this format. Raises: as `check_outputs`."""
    if output == Path("-") and form.is_text:
        return
    check_outputs([Output("-o", output, TEXT if form.is_text else FILE)], sources)
    if not overwrite and is_file(output, OutputError):
        raise OutputError(f"-o {shown_path(output)}", "a file that exists", "a new name", "Use --overwrite.")
