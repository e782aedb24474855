"""The reference as one line: its sequences one after the other, so that a place in any of them is a single number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from wyr_batch.reads.records import offsets_from
from wyr_batch.tokens.tokens import Int64s


@dataclass(frozen=True, slots=True)
class Genome:
    """The sequences that a header names.

    Attributes:
        names: [n], in the header's order.
        offsets: int64 [n + 1]; sequence i is places offsets[i] to offsets[i + 1] of the line.
    """

    names: tuple[str, ...]
    offsets: Int64s

    @classmethod
    def of(cls, header: Any) -> Genome:
        """Return that of a pysam.AlignmentHeader."""
        return cls(tuple(header.references), offsets_from(np.array(header.lengths, np.int64)))

    @property
    def lengths(self) -> Int64s:
        """Bases of each sequence, int64 [n]."""
        return np.diff(self.offsets)

    def sequences_at(self, places: Int64s) -> Int64s:
        """Return which sequence each place of the line is in, int64 [N]; places are below offsets[n]."""
        return np.searchsorted(self.offsets, places, "right") - 1
