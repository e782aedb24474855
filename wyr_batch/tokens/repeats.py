"""Reads that repeat an earlier read of their chunk, token for token: computed once, their results copied."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wyr_batch.tokens.tokens import Int64s, Tokens


@dataclass(frozen=True, slots=True)
class Repeats:
    """Reads that are not computed, and whose results theirs are; both int64 [K], indices in the chunk.

    Attributes:
        read: in rising order; source: the first read with the same tokens, never itself a repeat.
    """

    read: Int64s
    source: Int64s

    def __len__(self) -> int:
        return len(self.read)

    def spread(self, bounds: Int64s) -> tuple[Int64s, Int64s]:
        """Return the items of the repeats, and the items of their sources, in the same order.

        Args:
            bounds: int64 [n + 1], read i has items bounds[i] to bounds[i + 1]; a repeat has as many as its source.

        >>> to, of = Repeats(np.array([2]), np.array([0])).spread(np.array([0, 2, 3, 5]))
        >>> to.tolist(), of.tolist()
        ([3, 4], [0, 1])
        """
        counts = bounds[self.read + 1] - bounds[self.read]
        before = np.cumsum(counts) - counts
        place = np.arange(int(counts.sum()))
        to, of = (place + np.repeat(bounds[reads] - before, counts) for reads in (self.read, self.source))
        return to, of


def find_repeats(tokens: Tokens, runnable: npt.NDArray[np.bool_]) -> Repeats:
    """Find the reads whose token ids are those of an earlier read: all that the model sees of them.

    Args:
        runnable: bool [n], reads that are to be computed; the others neither are repeats nor have any.

    >>> tokens = Tokens(np.array([7, 8, 7], np.int16), np.zeros(3, np.int32), np.array([0, 1, 2, 3]))
    >>> found = find_repeats(tokens, np.ones(3, bool))
    >>> found.read.tolist(), found.source.tolist()
    ([2], [0])
    """
    # One hash table over the bytes of all reads; codes number the different ones as they come.
    offsets, ids = pa.py_buffer(tokens.offsets * tokens.ids.itemsize), pa.py_buffer(tokens.ids)
    reads = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(tokens), [None, offsets, ids])
    encoded = reads.dictionary_encode()
    if len(encoded.dictionary) == len(tokens):
        return Repeats(np.empty(0, np.int64), np.empty(0, np.int64))
    rows = np.flatnonzero(runnable)
    _, first, which = np.unique(encoded.indices.to_numpy()[rows], return_index=True, return_inverse=True)
    source = rows[first[which]]
    repeats = np.flatnonzero(source != rows)
    return Repeats(rows[repeats], source[repeats])
