"""Supplementary alignments: other bases of a read, elsewhere, with the mask that its primary record's row has.

read, as sequenced       ACGTACGTTTGACCAGGTCAACGTCA
primary, 16M10S          ACGTACGTTTGACCAG..........      its SEQ, and so its mask, has all bases
supplementary, 16H10M    ................GTCAACGTCA      hard clips say where in the read these are

name and mate of each -> key        kept of all of them, to know their primaries by: 8 bytes each
primaries, supplementary            put into a scratch file, sorted by name
one name at a time                  each supplementary record gets its part of the primary's mask
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import numpy as np

from wyr_batch.aligned.placed import SUPPLEMENTARY, oriented
from wyr_batch.aligned.scratch import values_of
from wyr_batch.reads.sam import mate_from_flag
from wyr_batch.tokens.windows import Float32s

_HARD_CLIP = 5


def key_of(record: Any) -> int:
    """Return a number that, in this process, all records of one name and mate share, and others rarely."""
    return hash((record.query_name, mate_from_flag(record.flag)))


def with_masks(records: Iterable[Any], lost: Counter[str]) -> Iterator[tuple[Any, Float32s]]:
    """Yield each supplementary record with its mask: float32, for the bases that it has, in SEQ's orientation.

    Args:
        records: supplementary ones, and their primaries with masks as sequenced; sorted by name.
        lost: counts those that have none, by reason.
    """
    for _, group in groupby(records, key=lambda record: record.query_name):
        primary: dict[int, list[Any]] = defaultdict(list)
        supplementary = []
        for record in group:
            if record.flag & SUPPLEMENTARY:
                supplementary.append(record)
            else:
                primary[mate_from_flag(record.flag)].append(record)
        for record in supplementary:
            candidates = primary[mate_from_flag(record.flag)]
            if len(candidates) != 1:
                lost["several reads of their name" if candidates else "no primary alignment with a mask"] += 1
            elif record.infer_read_length() != len(whole := _whole_mask(candidates[0])):
                lost["another length than their primary alignment's, clips counted"] += 1
            else:
                before, after = _hard_clips(record)
                yield record, oriented(record, whole)[before : len(whole) - after]


def _whole_mask(primary: Any) -> Float32s:
    """Return the mask of a read as sequenced, nan at bases that even its primary record is clipped of."""
    before, after = _hard_clips(primary)
    if primary.is_reverse:
        before, after = after, before
    return np.pad(values_of(primary), (before, after), constant_values=np.nan)


def _hard_clips(record: Any) -> tuple[int, int]:
    """Return how many bases are clipped off a record's SEQ, at either end of it."""
    cigar = record.cigartuples or [(0, 0)]
    first, last = cigar[0], cigar[-1]
    after = last[1] if last[0] == _HARD_CLIP and len(cigar) > 1 else 0
    return (first[1] if first[0] == _HARD_CLIP else 0), after
