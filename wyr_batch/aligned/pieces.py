"""The aligned part of each read's mask, in the order of the reference, in bounded memory.

    first look   -> is the input sorted, which reads have supplementary alignments?
    then         sorted, and none has      records as they come
                 else                      records and masks, and nothing else, in a scratch file, sorted there

A supplementary alignment stands elsewhere in the file than its primary one, whose row has the mask: supplementary.py.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wyr_batch.aligned.genome import Genome
from wyr_batch.aligned.placed import SUPPLEMENTARY, Piece, check_placed, has_place, oriented, piece_of
from wyr_batch.aligned.records import AlignedMasks, Matched, matched_records, open_records, records_of
from wyr_batch.aligned.scratch import read_scratch, scratch_bam, sort_scratch, strip, values_of
from wyr_batch.aligned.supplementary import key_of, with_masks
from wyr_batch.tokens.tokens import Int64s


@dataclass(slots=True)
class Census:
    """What became of the records.

    Attributes:
        n_reads: primary alignments with a place and a mask; n_supplementary: supplementary ones.
        n_unplaced: reads with a mask and no place: unmapped, duplicate, QC failure, below --min-mapq.
        lost: supplementary alignments whose mask cannot be told, by reason.
    """

    n_reads: int = 0
    n_supplementary: int = 0
    n_unplaced: int = 0
    lost: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What the records of an input are like, those without a place left aside.

    Attributes:
        is_sorted: they are in the order of the reference, whatever the header says.
        split: int64 [n], keys of the reads that have supplementary alignments.
    """

    is_sorted: bool
    split: Int64s


def first_look(source: AlignedMasks, min_mapq: int) -> FirstLook:
    """Read all records once. Raises: InputError."""
    keys = array("q")
    is_sorted, before = True, (0, 0)
    with open_records(source) as file:
        for record in records_of(file, source):
            if has_place(record, min_mapq):
                place = (record.reference_id, record.reference_start)
                is_sorted, before = is_sorted and place >= before, place
                if record.flag & SUPPLEMENTARY:
                    keys.append(key_of(record))
    return FirstLook(is_sorted, np.unique(np.frombuffer(keys, np.int64)))


def pieces_in_order(
    source: AlignedMasks, genome: Genome, min_mapq: int, scratch: Path, census: Census
) -> Iterator[Piece]:
    """Yield what each placed record shows of its read's mask, by ascending start.

    Args:
        scratch: a folder for files as large as the masks of the reads, a few bytes a token.
        census: counted up.
    Raises: InputError; OutputError and OSError where the scratch folder is full.
    """
    look = first_look(source, min_mapq)
    with open_records(source) as file:
        matched = matched_records(source, file)
        if not look.is_sorted or len(look.split):
            yield from _sorted(matched, look.split, source, genome, min_mapq, scratch, census)
            return
        for batch in matched:
            for record, span in batch.spans():
                if span is not None and _counts(record, min_mapq, census):
                    check_placed(record, genome, source)
                    yield piece_of(record, oriented(record, batch.values[span]), genome)


def _sorted(
    matched: Iterator[Matched],
    split: Int64s,
    source: AlignedMasks,
    genome: Genome,
    min_mapq: int,
    scratch: Path,
    census: Census,
) -> Iterator[Piece]:
    whole, waiting = scratch / "pieces.bam", scratch / "split.bam"
    with scratch_bam(whole, genome) as out:
        with scratch_bam(waiting, genome) as out_split:
            for batch in matched:
                for (record, span), is_split in zip(batch.spans(), _are_split(batch, split), strict=True):
                    if record.flag & SUPPLEMENTARY:
                        if has_place(record, min_mapq):
                            check_placed(record, genome, source)
                            out_split.write(strip(record, None))
                    elif span is not None:
                        counts = _counts(record, min_mapq, census)
                        if counts:
                            check_placed(record, genome, source)
                        values = batch.values[span]
                        if is_split:
                            out_split.write(strip(record, values))
                        if counts:
                            out.write(strip(record, oriented(record, values), "*"))
        for record, values in with_masks(read_scratch(sort_scratch(waiting, by_name=True)), census.lost):
            out.write(strip(record, values, "*"))
            census.n_supplementary += 1
    for record in read_scratch(sort_scratch(whole)):
        yield piece_of(record, values_of(record), genome)


def _counts(record: Any, min_mapq: int, census: Census) -> bool:
    """True if a primary record has a place; it is counted either way."""
    is_placed = has_place(record, min_mapq)
    census.n_reads += is_placed
    census.n_unplaced += not is_placed
    return is_placed


def _are_split(batch: Matched, split: Int64s) -> list[bool]:
    """Return for each record whether its read has supplementary alignments, or (rarely) only a key of such a one."""
    if not len(split):
        return [False] * len(batch.records)
    keys = np.array([key_of(record) for record in batch.records], np.int64)
    found: list[bool] = (split[np.searchsorted(split, keys).clip(max=len(split) - 1)] == keys).tolist()
    return found
