"""Which records have a place on the reference, and what of their masks lies there."""

from __future__ import annotations

from typing import Any, NamedTuple

from wyr_batch.aligned.genome import Genome
from wyr_batch.aligned.records import AlignedMasks
from wyr_batch.errors import InputError
from wyr_batch.reads.records import shown
from wyr_batch.tokens.windows import Float32s

SUPPLEMENTARY = 0x800
_NO_PLACE = 0x4 | 0x100 | 0x200 | 0x400  # unmapped, secondary, QC failure, duplicate


class Piece(NamedTuple):
    """What one record shows of a mask.

    Attributes:
        start: of its alignment, as a place of the genome's line.
        cigar: pairs of operation and length.
        values: float32 [bases of the record, hard-clipped ones not counted], in SEQ's orientation; nan: no value.
    """

    start: int
    cigar: list[tuple[int, int]]
    values: Float32s


def has_place(record: Any, min_mapq: int) -> bool:
    """True for a record that counts: as in `samtools depth -Q MIN_MAPQ`."""
    return not record.flag & _NO_PLACE and record.mapping_quality >= min_mapq and record.reference_id >= 0


def piece_of(record: Any, values: Float32s, genome: Genome) -> Piece:
    """Return the piece of a record; `values` as in Piece."""
    start = int(genome.offsets[record.reference_id]) + record.reference_start
    return Piece(start, record.cigartuples or [], values)


def oriented(record: Any, values: Float32s) -> Float32s:
    """Return the values of a read as its record stands: turned if that is of the reverse strand, or back again."""
    return values[::-1] if record.is_reverse else values


def check_placed(record: Any, genome: Genome, source: AlignedMasks) -> None:
    """Raise InputError if an alignment goes over the end of its sequence; that it fits its read, htslib sees to."""
    i = record.reference_id
    length = genome.offsets[i + 1] - genome.offsets[i]
    end = record.reference_end or 0
    if end > length:
        where = f"{source.shown}, read {shown(record.query_name)}"
        got = f"an alignment up to base {end:,} of {shown(genome.names[i])}"
        raise InputError(where, got, f"at most {length:,}, its length", "Make the alignments again.")
