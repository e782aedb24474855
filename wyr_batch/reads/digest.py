"""Checksums of all reads so far: what a resumed run compares, to be sure that it passes over the very same ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wyr_batch.errors import OtherReadsError
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.reads.source import crc32


class ReadsDigest:
    """Running checksums of reads: ids, lengths and bases, and where pairs of texts are cut.

    They do not depend on how reads are cut into chunks.
    """

    def __init__(self, values: Sequence[int] = (0, 0, 0)) -> None:
        self.values = tuple(values)

    def add(self, chunk: ReadChunk) -> tuple[int, ...]:
        """Take in the reads of a chunk; returns the checksums so far."""
        ids = chunk.ids
        bounds = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset : ids.offset + len(ids) + 1]
        names = memoryview(ids.buffers()[2] or b"")[bounds[0] : bounds[-1]] if len(ids) else b""
        # Ends of names too, or "ab", "c" would be "a", "bc".
        cuts = [] if chunk.second is None else [chunk.second]
        marks = np.stack([np.diff(bounds).astype(np.int64), np.diff(chunk.offsets), *cuts], axis=1)
        data = (names, marks.tobytes(), np.ascontiguousarray(chunk.bases).data)
        self.values = tuple(crc32(part, value) for part, value in zip(data, self.values, strict=True))
        return self.values

    def check(self, expected: Sequence[int], n_reads: int, source: str) -> None:
        """Raise OtherReadsError unless the reads so far are those of an earlier run."""
        if tuple(expected) != self.values:
            raise OtherReadsError(
                f"{source}, record {n_reads:,} and before",
                "other reads than those already explained",
                "the same",
                "Give the inputs of the run that is resumed, or start anew with --overwrite.",
            )
