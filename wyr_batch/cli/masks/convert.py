"""`wyr-batch convert`."""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from wyr_batch.checks.files import exists, is_file, shown_path
from wyr_batch.checks.outputs import FILE, TEXT, Output, Source, check_outputs
from wyr_batch.cli.interrupt import end_on_signal
from wyr_batch.cli.log import set_up
from wyr_batch.cli.params import GroupedCommand, NamedPath
from wyr_batch.draw.kinds import KINDS
from wyr_batch.errors import InputError, OutputError, UsageError

if TYPE_CHECKING:
    from wyr_batch.masks.file import MaskFile

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Format:
    """What `--to` can name.

    Attributes:
        module: in wyr_batch.convert; function: in it, called with a Conversion and the options by name.
        options: parameters of this command that the function takes; others are refused when they are given.
        writes: those of them that name a file to write; other paths are read.
        is_text: may go to standard output, a device or a pipe.
        kinds: whose masks it can hold.
    """

    module: str
    function: str
    options: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    is_text: bool = True
    kinds: tuple[str, ...] = ("reads", "proteins", "text")


_READS, _SEQUENCES, _TEXT = ("reads",), ("reads", "proteins"), ("text",)
_STDOUT = Path("-")
FORMATS = {
    "bed": Format("bed", "write_bed", ("rank", "sizes"), writes=("sizes",)),
    "bedgraph": Format("bed", "write_bedgraph", ("rank_mask", "sizes"), writes=("sizes",)),
    "tsv": Format("tsv", "write_tsv"),
    "kreport": Format("kreport", "write_kreport", kinds=_SEQUENCES),
    "fasta": Format("fastx", "write_fasta", ("hidden",), kinds=_SEQUENCES),
    "fastq": Format("fastx", "write_fastq", ("hidden",), kinds=_READS),
    "microbert-json": Format("microbert", "write_microbert_json", kinds=_READS),
    "bam": Format("bam", "write_bam", ("rank_mask",), is_text=False, kinds=_READS),
    "reference": Format(
        "reference", "write_reference", ("rank_mask", "coverage", "min_mapq"), writes=("coverage",), kinds=_READS
    ),
    "eraser": Format("rationales", "write_eraser", ("rank", "rank_mask"), kinds=_TEXT),
    "displacy": Format("rationales", "write_displacy", ("rank",), kinds=_TEXT),
}

# Of every format.
_COMMON = ("masks", "to", "output", "reads", "overwrite", "quiet", "debug")

_GROUPS = {
    "Input": ("reads",),
    "Output": ("to", "output", "overwrite"),
    "Format": ("rank", "rank_mask", "sizes", "hidden", "coverage", "min_mapq"),
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
@click.option(
    "--rank",
    metavar="RANK",
    help="For bed, eraser and displacy: the rank whose call stands beside the mask. [default: the finest; for displacy "
    "the only one]",
)
@click.option(
    "--rank-mask",
    metavar="RANK",
    help="For bedgraph, bam, reference and eraser: write the mask of this rank, from a run with --rank-masks.",
)
@click.option(
    "--sizes",
    type=NamedPath(),
    help="For bed and bedgraph: also write the length of each read to this file, for browsers.",
)
@click.option(
    "--hidden",
    type=click.Choice(["drop", "n"]),
    default="drop",
    help="For fasta and fastq: drop what the mask hides, so that each segment is a record, or write N there (in "
    "proteins X).",
)
@click.option(
    "--coverage",
    type=NamedPath(),
    metavar="FILE",
    help="For reference: also write how many reads the mean is of, at each base, to this .bedgraph or .bw.",
)
@click.option(
    "--min-mapq", type=int, default=0, help="For reference: leave out alignments with a lower mapping quality."
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
    form = FORMATS[to]
    from wyr_batch.convert.conversion import Conversion
    from wyr_batch.masks.file import open_masks

    opened = open_masks(masks)
    check_kind(to, opened)
    check_options(to, opened.kind.name)
    check_files(form, opened, reads, output, {name: options[name] for name in form.options}, overwrite)
    set_up(quiet, False, None)
    write = getattr(importlib.import_module(f"wyr_batch.convert.{form.module}"), form.function)
    with end_on_signal():
        written = write(Conversion(opened, reads, output), **{name: options[name] for name in form.options})
    logger.info(
        "%s -> %s %s in %s",
        opened.kind.count(written.n_reads),
        f"{written.n_records:,}",
        written.what,
        "standard output" if output == _STDOUT else shown_path(output),
    )


def check_options(to: str, kind: str) -> None:
    """Refuse options on the command line that are for other formats, and name those of this kind of masks.

    Raises: UsageError.
    """
    context = click.get_current_context()
    for param in context.command.params:
        name = param.name or ""
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        if name not in (*_COMMON, *FORMATS[to].options):
            users = [key for key, other in FORMATS.items() if name in other.options]
            fitting = [key for key in users if kind in FORMATS[key].kinds] or users
            raise UsageError(_flag(name), f"--to {to}", f"--to {', '.join(fitting)}: the option is of no use to others")


def check_kind(to: str, masks: MaskFile) -> None:
    """Refuse a format that masks of this kind do not go into. Raises: UsageError."""
    if masks.kind.name not in FORMATS[to].kinds:
        fitting = ", ".join(name for name, form in FORMATS.items() if masks.kind.name in form.kinds)
        users = " or ".join(KINDS[name].rows for name in FORMATS[to].kinds)
        advice = f"For {masks.kind.rows} there are {fitting}."
        raise UsageError(f"--to {to}", f"masks of {masks.kind.rows}", f"masks of {users}", advice)


def check_files(
    form: Format, masks: MaskFile, reads: tuple[str, ...], output: Path, options: dict[str, Any], overwrite: bool
) -> None:
    """Refuse outputs that would harm something, or that exist, before any work. Raises: UsageError, OutputError."""
    outputs = [] if output == _STDOUT and form.is_text else [Output("-o", output, TEXT if form.is_text else FILE)]
    sources = [Source("MASKS", masks.path)]
    sources += [Source("the input", path) for path in reads or masks.footer.get("inputs", ()) if _is_in_sight(path)]
    for name, value in options.items():
        if isinstance(value, Path) and name in form.writes:
            outputs.append(Output(_flag(name), value, TEXT))
        elif isinstance(value, Path):
            sources.append(Source(_flag(name), value))
    check_outputs(outputs, sources)
    for found in outputs:
        if not overwrite and is_file(found.path, OutputError):
            raise OutputError(found.shown, "a file that exists", "a new name", "Use --overwrite to replace it.")


def _is_in_sight(path: str) -> bool:
    """True if a file may be looked at; where somebody else's reads lay need not be."""
    try:
        return exists(path)
    except InputError:
        return False


def _flag(name: str) -> str:
    """Return the flag of a parameter of this command."""
    params = click.get_current_context().command.params
    return next(param.opts[-1] for param in params if param.name == name)
