"""Tokens of consecutive reads, and what makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from wyr_batch.reads.chunk import ReadChunk

Int16s = npt.NDArray[np.int16]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]

NO_WORD = -1  # of what stands between the texts of a pair


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of consecutive reads; those that stand around every window are not among them.

    Attributes:
        ids: int16 or int32 [N], token ids of all reads, one read after the other.
        starts: int32 [N], first base (of texts: code point) of each token within its read, 0-based.
        offsets: int64 [n + 1], read i holds tokens offsets[i] to offsets[i + 1].
        ends: int32 [N], where each token ends; None: where the next begins, and the last where the read ends.
        words: int32 [N], rising from word to word of a read, `NO_WORD` for what is no part of the text; None: there
            are no words.
        refused: why a read cannot be tokens for this model, by its index.
    """

    ids: Int16s | Int32s
    starts: Int32s
    offsets: Int64s
    ends: Int32s | None = None
    words: Int32s | None = None
    refused: tuple[tuple[int, str], ...] = ()

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> Int64s:
        """Tokens per read, int64 [n]."""
        return np.diff(self.offsets)


class Tokenizer(Protocol):
    """What makes tokens of reads.

    Attributes:
        has_spans: tokens say where they end, for what lies between two is of neither.
    """

    has_spans: bool

    def tokenise(self, chunk: ReadChunk) -> Tokens:
        """Return the tokens of a chunk's reads."""
        ...
