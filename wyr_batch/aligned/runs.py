"""Values along the reference as runs of equal ones: what bedGraph and bigWig hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wyr_batch.aligned.genome import Genome
from wyr_batch.aligned.tally import Float64s, Tally
from wyr_batch.tokens.tokens import Int64s

MEAN_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of bases with one value, in order.

    Attributes:
        sequences: int64 [n], which sequence of the genome.
        starts, ends: int64 [n], in it, half-open.
        values: float64 or int32 [n].
    """

    sequences: Int64s
    starts: Int64s
    ends: Int64s
    values: npt.NDArray[np.float64] | npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.starts)

    def by_sequence(self) -> Iterator[tuple[int, slice]]:
        """Yield each sequence with the slice of its runs."""
        bounds = [0, *(np.flatnonzero(np.diff(self.sequences)) + 1).tolist(), len(self)] if len(self) else []
        for start, end in pairwise(bounds):
            yield int(self.sequences[start]), slice(start, end)


def mean_of(tally: Tally) -> Float64s:
    """Return the mean mask at each place, rounded to 6 decimals; 0 where there is no value."""
    means: Float64s = np.round(tally.sums / np.maximum(tally.counts, 1), MEAN_DECIMALS)
    return means


class RunMaker:
    """Makes runs of the values of one tile after the other; a run may go on over tiles, but not over sequences."""

    def __init__(self, genome: Genome) -> None:
        self._genome = genome
        self._held = self._cut(Tally(0, np.zeros(0), np.zeros(0, np.int32)), np.zeros(0))

    def add(self, tally: Tally, values: npt.NDArray[Any]) -> Runs:
        """Return the runs that are whole.

        Args:
            values: [n], one for each place of the tally; not looked at where that has none.
        """
        starts, ends, found = self._cut(tally, values)
        held_starts, held_ends, held = self._held
        if len(held) and len(starts):
            offsets = self._genome.offsets
            is_first = offsets[np.searchsorted(offsets, starts[0])] == starts[0]
            if held_ends[0] == starts[0] and held[0] == found[0] and not is_first:
                starts[0] = held_starts[0]
            else:
                starts, ends, found = (np.append(a, b) for a, b in zip(self._held, (starts, ends, found), strict=True))
        if len(starts):
            self._held = starts[-1:], ends[-1:], found[-1:]
        return self._runs(starts[:-1], ends[:-1], found[:-1])

    def last(self) -> Runs:
        """Return the run that was waiting to go on."""
        return self._runs(*self._held)

    def _cut(self, tally: Tally, values: npt.NDArray[Any]) -> tuple[Int64s, Int64s, npt.NDArray[Any]]:
        """Return start, end and value of the runs of one tile, in places of the line."""
        has_value = tally.counts > 0
        begins = np.ones(len(values), bool)
        begins[1:] = (values[1:] != values[:-1]) | (has_value[1:] != has_value[:-1])
        offsets = self._genome.offsets
        within = slice(*np.searchsorted(offsets, [tally.start, tally.start + len(values)]))
        begins[offsets[within] - tally.start] = True
        first = np.flatnonzero(begins)
        end = np.append(first[1:], len(values))[: len(first)]
        kept = has_value[first]
        return first[kept] + tally.start, end[kept] + tally.start, values[first[kept]]

    def _runs(self, starts: Int64s, ends: Int64s, values: npt.NDArray[Any]) -> Runs:
        sequences = self._genome.sequences_at(starts)
        before = self._genome.offsets[sequences]
        return Runs(sequences, starts - before, ends - before, values)


def bedgraph_lines(runs: Runs, names: pa.Array) -> pa.Array:
    """Return a line for each run: name of the sequence, start, end, value, with tabs between.

    Args:
        names: of the sequences of the genome.
    Source: https://genome.ucsc.edu/goldenPath/help/bedgraph.html (places are 0-based, half-open).
    """
    columns = (names.take(pa.array(runs.sequences)), *map(pa.array, (runs.starts, runs.ends, runs.values)))
    *texts, last = (column.cast(pa.string()) for column in columns)
    return pc.binary_join_element_wise(*texts, pc.binary_join_element_wise(last, "\n", ""), "\t")
