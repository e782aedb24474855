"""One read as pictures need it, wherever it comes from: a row of a masks file, or a Prediction.

DrawnRead -> html.py, svg.py, terminal.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from wyr_batch.tokens.tokens import Int32s
from wyr_batch.tokens.windows import Float32s

KEPT = 0.5
_OTHER = re.compile(r"[^!-~]")


def printable(text: str) -> str:
    """Return text of a file as it may be shown: what steers a terminal or is no letter of XML becomes an escape.

    >>> printable("read\x1b[31m")
    'read\\\\x1b[31m'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@dataclass(frozen=True, slots=True)
class Call:
    """What a read is called at one rank, plain and under its mask; None where there is no call, or no masked read."""

    rank: str
    label: str | None
    prob: float | None
    masked_label: str | None
    masked_prob: float | None

    @property
    def heading(self) -> str:
        """The rank, as it may be shown."""
        return printable(self.rank)

    @property
    def is_kept(self) -> bool:
        """True if the masked read has the call of the plain one."""
        return self.label is not None and self.label == self.masked_label

    @property
    def is_masked(self) -> bool:
        """True if the masked read was classified."""
        return self.masked_prob is not None

    @property
    def verdict(self) -> str:
        """Whether the masked read keeps the call, as a sign and a word; empty where that cannot be said."""
        if self.label is None or not self.is_masked:
            return ""
        return "✓ kept" if self.is_kept else "✗ lost"

    @property
    def texts(self) -> tuple[str, str]:
        """The plain and the masked call with their probabilities; empty where there is nothing to say."""
        return _call_text(self.label, self.prob), _call_text(self.masked_label, self.masked_prob)


def _call_text(label: str | None, prob: float | None) -> str:
    return "" if prob is None else f"{'no call' if label is None else printable(label)} {prob:.2f}"


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
        rank: the rank whose mask it is; None: the mask of all.
    """

    read_id: str
    mate: int
    length: int
    status: str
    bases: str
    values: Float32s
    starts: Int32s
    calls: tuple[Call, ...]
    rank: str | None = None

    @property
    def title(self) -> str:
        """Name, with /1 or /2 where there are mates."""
        end = f"/{self.mate}" if self.mate else ""
        return printable(self.read_id.removesuffix(end) + end)

    @property
    def facts(self) -> str:
        """Status unless it is ok, sizes, and the rank if the mask is of one."""
        said = [] if self.status == "ok" else [printable(self.status.replace("_", " "))]
        said.append(f"{self.length:,} bp")
        if n := len(self.values):
            of_rank = f" of {printable(self.rank)}" if self.rank else ""
            said += [f"{n:,} token{'s' if n > 1 else ''}", f"mask{of_rank} mean {self.values.mean():.2f}"]
        return ", ".join(said)

    @property
    def letters(self) -> str:
        """The bases as they may be shown, one letter each."""
        return _OTHER.sub("?", self.bases)

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
