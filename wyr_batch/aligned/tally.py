"""Pieces of masks to the sum and number of values at each base of the reference.

Places of the genome's line are counted in tiles. Pieces come by ascending start, so a tile that ends before the newest
piece starts is whole and leaves; open are only those that alignments still reach into.

    pieces   ------  -----------
               ------------    ----------- newest
    tiles    |  whole  |    open    |    open    |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from wyr_batch.aligned.placed import Piece
from wyr_batch.reads.records import offsets_from
from wyr_batch.tokens.tokens import Int32s, Int64s
from wyr_batch.tokens.windows import Float32s

TILE_BASES = 1 << 16
_BATCH_PIECES, _BATCH_BASES = 1024, 1_000_000
_ALIGNED, _READ_ONLY, _REFERENCE_ONLY = (0, 7, 8), (1, 4), (2, 3)  # M = X; I S; D N. H and P are of neither.

Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tally:
    """Consecutive places of the genome's line.

    Attributes:
        start: the first place.
        sums: float64 [n], of the mask values there.
        counts: int32 [n], how many they are.
    """

    start: int
    sums: Float64s
    counts: Int32s


def tally(pieces: Iterable[Piece]) -> Iterator[Tally]:
    """Yield the tiles that have values, in order.

    Args:
        pieces: by ascending start.
    """
    tiles: dict[int, Tally] = {}
    for batch in _batches(pieces):
        _count(tiles, *project(batch))
        for i in sorted(i for i in tiles if i < batch[-1].start // TILE_BASES):
            yield tiles.pop(i)
    for i in sorted(tiles):
        yield tiles[i]


def project(pieces: list[Piece]) -> tuple[Int64s, Float32s]:
    """Return the aligned bases of some pieces: their places, int64 [N], and mask values, float32 [N].

    Insertions and clips have no place; deletions and skipped parts of the reference have no value.
    Source: SAM specification, section 1.4.6.
    """
    starts, firsts, lengths = [], [], []  # of each block of aligned bases: on the line, in the values, in bases
    n_values = 0
    for start, cigar, values in pieces:
        place, at = start, n_values
        for operation, length in cigar:
            if operation in _ALIGNED:
                starts.append(place)
                firsts.append(at)
                lengths.append(length)
                place += length
                at += length
            elif operation in _READ_ONLY:
                at += length
            elif operation in _REFERENCE_ONLY:
                place += length
        n_values += len(values)
    sizes = np.array(lengths, np.int64)
    before = offsets_from(sizes)[:-1]
    within = np.arange(sizes.sum())
    places = np.repeat(np.array(starts, np.int64) - before, sizes) + within
    found = np.concatenate([piece.values for piece in pieces])
    found = found[np.repeat(np.array(firsts, np.int64) - before, sizes) + within]
    known = ~np.isnan(found)
    return (places, found) if known.all() else (places[known], found[known])


def _batches(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    n_bases = 0
    for piece in pieces:
        batch.append(piece)
        n_bases += len(piece.values)
        if len(batch) == _BATCH_PIECES or n_bases >= _BATCH_BASES:
            yield batch
            batch, n_bases = [], 0
    if batch:
        yield batch


def _count(tiles: dict[int, Tally], places: Int64s, values: Float32s) -> None:
    """Add values to the tiles that they are in, which are made where they are missing."""
    numbers = places // TILE_BASES
    if len(numbers) and numbers.min() != numbers.max():
        order = np.argsort(numbers, kind="stable")
        places, values, numbers = places[order], values[order], numbers[order]
    bounds = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)] if len(numbers) else []
    for start, end in pairwise(bounds):
        i = int(numbers[start])
        if i not in tiles:
            tiles[i] = Tally(i * TILE_BASES, np.zeros(TILE_BASES), np.zeros(TILE_BASES, np.int32))
        inside = places[start:end] - i * TILE_BASES
        first, last = int(inside.min()), int(inside.max())
        inside -= first
        tiles[i].sums[first : last + 1] += np.bincount(inside, values[start:end])
        tiles[i].counts[first : last + 1] += np.bincount(inside).astype(np.int32)
