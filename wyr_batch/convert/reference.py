"""Masks along the reference: at each of its bases the mean mask of the reads aligned there, and how many they are.

masks, records -> Piece      the aligned part of each read's mask       aligned/pieces.py
Piece          -> Tally      sum and number of the values at each base  aligned/tally.py
Tally          -> Runs       runs of equal means                        aligned/runs.py
Runs           -> file       bedGraph or bigWig, by its name
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa

from wyr_batch.aligned.bigwig import bigwig_output, import_pybigwig
from wyr_batch.aligned.genome import Genome
from wyr_batch.aligned.pieces import Census, pieces_in_order
from wyr_batch.aligned.records import aligned_masks, open_records
from wyr_batch.aligned.runs import RunMaker, Runs, bedgraph_lines, mean_of
from wyr_batch.aligned.tally import tally
from wyr_batch.checks.files import shown_path
from wyr_batch.checks.numbers import check_numbers
from wyr_batch.checks.outputs import Output, check_place
from wyr_batch.convert.conversion import Conversion, Written, mask_column
from wyr_batch.convert.output import STDOUT, text_output
from wyr_batch.errors import InputError, UsageError

logger = logging.getLogger(__name__)

_BEDGRAPH, _BIGWIG = (".bedgraph", ".bedgraph.gz", ".bg", ".bg.gz"), (".bw", ".bigwig")
_MOST_MAPQ = 255


def write_reference(
    conversion: Conversion, *, rank_mask: str | None = None, coverage: Path | None = None, min_mapq: int = 0
) -> Written:
    """Write the mean mask at each base of the reference, as runs of equal values.

    Args:
        rank_mask: the masks of this rank; None: those of all ranks together.
        coverage: a file of its own for the number of values at each base; None: not written.
        min_mapq: least mapping quality of an alignment that counts.
    Raises: UsageError, InputError, OutputError, MissingExtraError.
    """
    check_numbers([("--min-mapq", min_mapq, 0, _MOST_MAPQ)])
    check_track("-o", conversion.output)
    if coverage is not None:
        check_track("--coverage", coverage)
    source = aligned_masks(conversion.masks, conversion.reads, mask_column(conversion.masks, rank_mask))
    with open_records(source) as file:
        genome = Genome.of(file.header)
    if not genome.names:
        raise InputError(
            source.shown, "a header without @SQ lines", "reads aligned to a reference", "Align them first."
        )
    census, n_runs = Census(), 0
    with ExitStack() as stack:
        add_means = stack.enter_context(_track(conversion.output, genome))
        add_counts = stack.enter_context(_track(coverage, genome)) if coverage else None
        scratch = Path(stack.enter_context(_scratch_folder(conversion.output)))
        means, counts = RunMaker(genome), RunMaker(genome)
        for part in tally(pieces_in_order(source, genome, min_mapq, scratch, census)):
            runs = means.add(part, mean_of(part))
            add_means(runs)
            n_runs += len(runs)
            if add_counts:
                add_counts(counts.add(part, part.counts))
        add_means(last := means.last())
        if add_counts:
            add_counts(counts.last())
    _report(census, source.shown)
    return Written(census.n_reads, n_runs + len(last), "runs")


def check_track(flag: str, path: Path) -> None:
    """Raise unless a name says which kind of track it is to be, and that kind can be written there."""
    name = path.name.lower()
    if name.endswith(_BIGWIG):
        check_place(Output(flag, path))
        import_pybigwig()
    elif path != STDOUT and not name.endswith(_BEDGRAPH):
        expected = "a name ending in .bedgraph (or .bedgraph.gz), .bw or .bigwig"
        raise UsageError(flag, shown_path(path), expected, "The name says which format to write.")


@contextmanager
def _track(path: Path, genome: Genome) -> Iterator[Callable[[Runs], None]]:
    """Give a function that writes runs to a track, which appears at the end of the `with`."""
    if path.name.lower().endswith(_BIGWIG):
        with bigwig_output(path, genome) as add:
            yield add
    else:
        names = pa.array(genome.names, pa.string())
        with text_output(path) as out:
            yield lambda runs: out.write_lines(bedgraph_lines(runs, names))


def _scratch_folder(output: Path) -> tempfile.TemporaryDirectory[str]:
    """Return a folder beside an output, which the user knows to have space; of a stream, where the system has it."""
    is_stream = output == STDOUT or (output.exists() and not output.is_file())
    folder = None if is_stream else os.path.dirname(os.path.realpath(output))
    return tempfile.TemporaryDirectory(prefix=".wyr-batch-", suffix=".partial", dir=folder)


def _report(census: Census, shown: str) -> None:
    if census.n_supplementary:
        logger.info("%s: %s supplementary alignments as well", shown, f"{census.n_supplementary:,}")
    if census.n_unplaced:
        why = "unmapped, duplicate, QC failure or below --min-mapq"
        logger.info("%s: %s reads have no place: %s", shown, f"{census.n_unplaced:,}", why)
    for reason, n in census.lost.most_common():
        logger.warning("%s: %s supplementary alignments left out: %s", shown, f"{n:,}", reason)
    if not census.n_reads and not census.n_supplementary:
        logger.warning("%s: no read has a place, so the track is empty", shown)
