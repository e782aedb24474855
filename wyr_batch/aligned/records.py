"""The records of a BAM, CRAM or SAM, each with the mask of its row.

`run` makes one row of each primary record, in file order, with the bases as they were sequenced. So rows and primary
records are counted off against each other, and name, mate and length of each pair are compared. Secondary and
supplementary records have no row.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pysam

from wyr_batch.checks.files import shown_path
from wyr_batch.errors import InputError
from wyr_batch.masks.bases import inputs_of
from wyr_batch.masks.file import MaskFile
from wyr_batch.masks.rows import MaskRows
from wyr_batch.reads.alignments import advice_on, quiet_pysam
from wyr_batch.reads.open import open_reads
from wyr_batch.reads.records import offsets_from, shown
from wyr_batch.reads.sam import mate_from_flag
from wyr_batch.reads.source import CUT
from wyr_batch.tokens.tokens import Int64s
from wyr_batch.tokens.windows import Float32s

_BATCH_RECORDS, _BATCH_BASES = 1024, 1_000_000
_COLUMNS = ("read_id", "mate", "length", "token_start")
NOT_PRIMARY = 0x100 | 0x800
_EXPECTED = "one SAM, BAM or CRAM file"
_ADVICE = "Name with --reads the file that these masks were made from."


@dataclass(frozen=True, slots=True)
class AlignedMasks:
    """A masks file and the one input it was made from, which is SAM, BAM or CRAM.

    Attributes:
        column: of the masks that are taken.
        path: of the input, absolute, so that htslib takes it for a file whatever its name is.
        shown: as messages name it.
        form: SAM, BAM or CRAM.
        interleaved: the run numbered the mates in turn, whatever their flags say.
        may_go_on: the run had --max-reads, so that records may follow the last row's.
    """

    masks: MaskFile
    column: str
    path: str
    shown: str
    form: str
    interleaved: bool
    may_go_on: bool


@dataclass(frozen=True, slots=True)
class Matched:
    """Consecutive records with the masks of their rows.

    Attributes:
        records: pysam.AlignedSegment [n], in file order, of every kind.
        rows: int64 [n], which mask is a record's; -1: none, for it is secondary, supplementary or after the last row.
        values: float32 [N], a mask value for each base of each row, as sequenced.
        offsets: int64 [m + 1], values of mask i are offsets[i] to offsets[i + 1]; none where the row has no mask.
    """

    records: list[Any]
    rows: Int64s
    values: Float32s
    offsets: Int64s

    def spans(self) -> Iterator[tuple[Any, slice | None]]:
        """Yield each record with where its mask is among the values, None where it has none."""
        bounds = self.offsets.tolist()
        for record, row in zip(self.records, self.rows.tolist(), strict=True):
            has_any = row >= 0 and bounds[row] < bounds[row + 1]
            yield record, slice(bounds[row], bounds[row + 1]) if has_any else None


def aligned_masks(masks: MaskFile, reads: Sequence[str] = (), column: str = "mask") -> AlignedMasks:
    """Return a masks file with its input, which has been looked at.

    Args:
        reads: where it lies now; none: where it lay.
    Raises: InputError if there are several, or it is not to be had or not SAM, BAM or CRAM.
    """
    inputs = inputs_of(masks, reads)
    if len(inputs.paths) != 1:
        advice = "Merge them (samtools merge) before wyr-batch run, or run on each."
        raise InputError(masks.shown, f"{len(inputs.paths)} inputs", _EXPECTED, advice)
    path = inputs.paths[0]
    with open_reads(path) as opened:
        form, packing = opened.format, opened.compression
    if form not in ("SAM", "BAM", "CRAM"):
        advice = "Align the reads first, run wyr-batch run on the alignments, and convert those masks."
        raise InputError(shown_path(path), f"{form}, the input of {masks.shown}", _EXPECTED, advice)
    if packing == "zstd":
        raise InputError(shown_path(path), f"{form} packed with zstd", "one that is not", "Unpack it: zstd -d")
    may_go_on = inputs.max_reads is not None and inputs.max_reads <= masks.n_rows
    return AlignedMasks(masks, column, os.path.abspath(path), shown_path(path), form, inputs.interleaved, may_go_on)


@contextmanager
def open_records(source: AlignedMasks) -> Iterator[Any]:
    """Open the input as a pysam.AlignmentFile; meanwhile pysam is quiet and escapes names. Raises: InputError."""
    with quiet_pysam():
        try:
            file = pysam.AlignmentFile(source.path, "r", check_sq=False)
        except (OSError, ValueError) as error:
            raise InputError(source.shown, f"'{error}'", f"{source.form} data", CUT) from None
        with file:
            yield file


def records_of(file: Any, source: AlignedMasks) -> Iterator[Any]:
    """Yield every record of an open input, in file order. Raises: InputError where one is not good."""
    stream = file.fetch(until_eof=True)
    n_records = 0
    while True:
        try:
            batch = list(itertools.islice(stream, _BATCH_RECORDS))
        except (OSError, ValueError) as error:
            where, got = f"{source.shown}, after record {n_records:,}", f"an unreadable record ({error})"
            raise InputError(where, got, f"{source.form} data", advice_on(source.form)) from None
        if not batch:
            return
        if source.form == "SAM":
            _check_named(batch, source)
        yield from batch
        n_records += len(batch)


def _check_named(records: list[Any], source: AlignedMasks) -> None:
    """Raise InputError for an alignment to a sequence without @SQ line, which htslib takes for unmapped."""
    for record in records:
        if record.reference_id < 0 <= record.reference_start and record.cigartuples:
            where = f"{source.shown}, read {shown(record.query_name)}"
            got = "an alignment to a sequence that the header does not name"
            raise InputError(where, got, "an @SQ line for each", "Make the file again with its whole header.")


def matched_records(source: AlignedMasks, file: Any) -> Iterator[Matched]:
    """Yield all records of an open input with the masks of their rows, some hundred at a time.

    Raises: InputError where a record is not that of its row.
    """
    masks, stream = source.masks, records_of(file, source)
    for rows in masks.rows([*_COLUMNS, source.column]):
        start = 0
        while start < len(rows):
            records, n_primary = _take(stream, len(rows) - start)
            if not records:
                got = f"the end after {rows.first + start:,} primary records"
                raise InputError(source.shown, got, f"one for each of {masks.n_rows:,} rows of {masks.shown}", _ADVICE)
            yield _matched(records, rows.part(start, start + n_primary), source)
            start += n_primary
    while records := _take(stream, _BATCH_RECORDS)[0]:
        if not source.may_go_on and any(not record.flag & NOT_PRIMARY for record in records):
            got = f"more than {masks.n_rows:,} primary records"
            raise InputError(source.shown, got, f"one for each of {masks.n_rows:,} rows of {masks.shown}", _ADVICE)
        yield Matched(records, np.full(len(records), -1), np.zeros(0, np.float32), np.zeros(1, np.int64))


def _take(stream: Iterator[Any], most_primary: int) -> tuple[list[Any], int]:
    """Return the next records, and how many of them are primary."""
    records: list[Any] = []
    n_primary = n_bases = 0
    for record in itertools.islice(stream, _BATCH_RECORDS):
        records.append(record)
        n_primary += not record.flag & NOT_PRIMARY
        n_bases += record.query_length
        if n_primary == most_primary or n_bases >= _BATCH_BASES:
            break
    return records, n_primary


def _matched(records: list[Any], rows: MaskRows, source: AlignedMasks) -> Matched:
    is_primary = np.array([not record.flag & NOT_PRIMARY for record in records])
    _check_same([record for record in records if not record.flag & NOT_PRIMARY], rows, source)
    places = np.where(is_primary, np.cumsum(is_primary) - 1, -1)
    return Matched(records, places, *base_masks(rows, source.masks, source.column))


def _check_same(primary: list[Any], rows: MaskRows, source: AlignedMasks) -> None:
    """Raise InputError unless each primary record has the name, mate and length of its row."""
    names = pa.array([record.query_name or "*" for record in primary], pa.string())
    lengths = np.array([record.query_length for record in primary], np.int64)
    if source.interleaved:
        mates = 1 + np.arange(rows.first, rows.first + len(rows)) % 2
    else:
        mates = np.array([mate_from_flag(record.flag) for record in primary], np.int64)
    ids = rows.column("read_id")
    same = (
        pc.equal(ids, names).to_numpy(zero_copy_only=False)
        & (rows.numbers("mate") == mates)
        & (rows.lengths == lengths)
    )
    if same.all():
        return
    i = int(np.argmin(same))
    raise InputError(
        f"{source.shown}, read {shown(names[i].as_py())}, primary record {rows.first + i + 1:,}",
        f"mate {mates[i]} of {lengths[i]:,} bp",
        f"{shown(ids[i].as_py())}, mate {rows.numbers('mate')[i]} of {rows.lengths[i]:,} bp, as in row "
        f"{rows.first + i + 1:,} of {source.masks.shown}",
        _ADVICE,
    )


def base_masks(rows: MaskRows, masks: MaskFile, column: str) -> tuple[Float32s, Int64s]:
    """Return a mask value for each base of some rows: that of the token it is part of.

    Returns: float32 [N]; int64 [n + 1], values of row i are offsets[i] to offsets[i + 1]; none if it has no mask.
    Raises: InputError if the tokens of a row do not cover its read, or a value is not from 0 to 1.
    """
    tokens = rows.masks(column)
    sizes = tokens.ends.astype(np.int64) - tokens.starts
    has_any = np.diff(tokens.offsets) > 0
    offsets = offsets_from(np.where(has_any, rows.lengths, 0))
    first = tokens.offsets[:-1][has_any]
    covered = np.add.reduceat(sizes, first) if len(first) else sizes
    least = np.minimum.reduceat(sizes, first) if len(first) else sizes
    wrong = (covered != rows.lengths[has_any]) | (tokens.starts[first] != 0) | (least < 0)
    if wrong.any():
        i = int(np.flatnonzero(has_any)[int(np.argmax(wrong))])
        where = f"{masks.shown}, column token_start, row {rows.first + i + 1:,}"
        raise InputError(where, "tokens that do not cover the read", "each base in one token", "Make the masks again.")
    if len(tokens.values) and not (tokens.values.min() >= 0 and tokens.values.max() <= 1):
        i = int(np.argmin((tokens.values >= 0) & (tokens.values <= 1)))
        row = rows.first + int(np.searchsorted(tokens.offsets, i, "right"))
        where = f"{masks.shown}, column {column}, row {row:,}"
        raise InputError(where, tokens.values[i], "numbers from 0 to 1", "Make the masks again.")
    return np.repeat(tokens.values, sizes), offsets
