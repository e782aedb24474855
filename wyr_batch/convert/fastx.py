"""Segments as FASTA or FASTQ: each a record of its own, or whole reads with N for what the mask hides, proteins with X.

Bases are in upper case and in the direction that was sequenced; one line a sequence.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wyr_batch.convert.conversion import Conversion, Written
from wyr_batch.convert.lines import copies, cut_rows, decimal_texts, field_texts, join, read_names, slices
from wyr_batch.convert.output import text_output
from wyr_batch.draw.kinds import READS
from wyr_batch.masks.bases import RowBases, with_bases
from wyr_batch.masks.file import MaskFile
from wyr_batch.masks.rows import MaskRows
from wyr_batch.ranks import coarse_to_fine
from wyr_batch.rows.segments import Segments
from wyr_batch.tokens.kmers import Uint8s

NO_CALL = "."
_MOST_BASES = 4_000_000
_DECIMALS = 3
_N, _X, _WORST_QUALITY = b"NX!"
_COLUMNS = ("read_id", "mate", "length", "segments", "mask_mean")


def write_fasta(conversion: Conversion, *, hidden: str) -> Written:
    """Write the relevant bases as FASTA.

    Args:
        hidden: `drop`: a record a segment, named `READ:START-END` in bases of the read, 0-based and half-open; `n`:
            a record a read that has a mask.
    Raises: InputError, OutputError.
    """
    return _write(conversion, hidden == "drop", with_qualities=False)


def write_fastq(conversion: Conversion, *, hidden: str) -> Written:
    """Write the relevant bases with their qualities, which are read from the inputs again; an N has the worst.

    Args: as `write_fasta`. Raises: InputError, also where a read has no qualities; OutputError.
    """
    return _write(conversion, hidden == "drop", with_qualities=True)


def _write(conversion: Conversion, by_segment: bool, with_qualities: bool) -> Written:
    masks = conversion.masks
    ranks = coarse_to_fine(masks.ranks)
    found = with_bases(masks, conversion.reads, [*_COLUMNS, *ranks], qualities=with_qualities)
    n_records = 0
    with text_output(conversion.output) as out:
        for rows, bases in _pieces(found):
            names, segments = read_names(rows, masks), rows.segments()
            calls = _calls(rows, ranks, masks)
            if by_segment:
                of_read = np.repeat(bases.offsets[:-1], np.diff(segments.offsets))
                starts, ends = of_read + segments.start, of_read + segments.end
                spans = join(pa.array(segments.start), pa.array(segments.end), sep="-")
                names = join(copies(names, segments.offsets), spans, sep=":")
                calls, means = copies(calls, segments.offsets), segments.mean
                has_mask = None
            else:
                bases = _with_hidden(bases, segments, _N if masks.kind is READS else _X)
                starts, ends = bases.offsets[:-1], bases.offsets[1:]
                means = rows.numbers("mask_mean")
                has_mask = rows.column("mask_mean").is_valid()
            title = join(names, " ", calls, "mean=", decimal_texts(means, _DECIMALS), sep="")
            parts = [">" if bases.qualities is None else "@", title, "\n", slices(bases.bases, starts, ends)]
            if bases.qualities is not None:
                parts += ["\n+\n", slices(bases.qualities, starts, ends)]
            records = join(*parts, "\n", sep="")
            records = records if has_mask is None else records.filter(has_mask)
            out.write_lines(records)
            n_records += len(records)
    return Written(masks.n_rows, n_records, "segments" if by_segment else f"{masks.kind.rows} with a mask")


def _pieces(found: Iterator[tuple[MaskRows, RowBases]]) -> Iterator[tuple[MaskRows, RowBases]]:
    """Yield rows with their bases, each time so few that their text is small; a long read is one alone."""
    for rows, bases in found:
        for part in cut_rows(rows, rows.lengths, _MOST_BASES):
            start = part.first - rows.first
            yield part, bases.part(start, start + len(part))


def _calls(rows: MaskRows, ranks: list[str], masks: MaskFile) -> pa.Array:
    """Return `RANK=CALL;` of every rank for each row."""
    texts: list[pa.Array | str] = []
    for rank in ranks:
        calls = field_texts(rows, rank, masks)
        texts += [f"{rank}=", pc.if_else(pc.equal(calls, ""), NO_CALL, calls), ";"]
    return join(*texts, sep="")


def _with_hidden(bases: RowBases, segments: Segments, letter: int) -> RowBases:
    """Return reads with a letter, and the worst quality, where no segment is."""
    of_read = np.repeat(bases.offsets[:-1], np.diff(segments.offsets))
    steps = np.zeros(len(bases.bases) + 1, np.int32)
    np.add.at(steps, of_read + segments.start, 1)
    np.add.at(steps, of_read + segments.end, -1)
    is_kept = np.cumsum(steps[:-1]) > 0

    def hidden(values: Uint8s, other: int) -> Uint8s:
        return np.where(is_kept, values, np.uint8(other))

    qualities = None if bases.qualities is None else hidden(bases.qualities, _WORST_QUALITY)
    return RowBases(hidden(bases.bases, letter), bases.offsets, qualities)
