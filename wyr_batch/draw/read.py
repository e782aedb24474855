"""One read as pictures need it, wherever it comes from: a row of a masks file, or a Prediction.

DrawnRead -> html.py, svg.py, terminal.py
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from wyr_batch.tokens.kmers import Int32s
from wyr_batch.tokens.windows import Float32s

KEPT = 0.5


@dataclass(frozen=True, slots=True)
class Call:
    """What a read is called at one rank, plain and under its mask; None where there is no call, or no masked read."""

    rank: str
    label: str | None
    prob: float | None
    masked_label: str | None
    masked_prob: float | None

    @property
    def is_kept(self) -> bool:
        """True if the masked read has the call of the plain one."""
        return self.label is not None and self.label == self.masked_label


@dataclass(frozen=True, slots=True)
class DrawnToken:
    """A token of a read: its bases start to end, half-open, its mask value, and whether it is part of a segment."""

    start: int
    end: int
    value: float

    @property
    def is_kept(self) -> bool:
        return self.value >= KEPT


@dataclass(frozen=True, slots=True)
class DrawnRead:
    """A read and its mask.

    Attributes:
        read_id: header up to the first white space.
        mate: 0, or 1/2 for pairs.
        length: bases.
        status: ok, windowed, empty, too_short or failed; the last three have no tokens.
        bases: upper case; empty where they are not to be had.
        values: float32 [T], mask in [0, 1]; starts: int32 [T], first base of each token.
        calls: one a rank.
    """

    read_id: str
    mate: int
    length: int
    status: str
    bases: str
    values: Float32s
    starts: Int32s
    calls: tuple[Call, ...]

    def tokens(self) -> Iterator[DrawnToken]:
        """Yield the tokens in read order; white space between two belongs to the first."""
        bounds = pairwise([*self.starts.tolist(), self.length])
        for (start, end), value in zip(bounds, self.values.tolist(), strict=True):
            yield DrawnToken(start, end, value)

    def segments(self) -> list[tuple[int, int]]:
        """Return runs of tokens whose mask rounds to 1, as bases start to end, half-open."""
        runs: list[tuple[int, int]] = []
        for token in self.tokens():
            if token.is_kept:
                joins = bool(runs) and runs[-1][1] == token.start
                runs[-1:] = [(runs[-1][0], token.end)] if joins else [*runs[-1:], (token.start, token.end)]
        return runs
