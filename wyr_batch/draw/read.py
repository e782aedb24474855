"""One read as pictures need it, wherever it comes from: a row of a masks file, or a Prediction.

DrawnRead -> html.py, svg.py, terminal.py
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from wyr_batch.draw.kinds import READS, YES, Kind, is_multi_label
from wyr_batch.tokens.tokens import Int32s
from wyr_batch.tokens.windows import Float32s

KEPT = 0.5
_OTHER = re.compile(r"[^!-~]")
_FEW = 3  # labels that are shown where none is given


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
    """A read and its mask; a protein or a text is one as well.

    Attributes:
        read_id: header up to the first white space.
        mate: 0, or 1/2 for pairs.
        length: bases.
        status: ok, windowed, empty, too_short or failed; the last three have no tokens.
        bases: upper case; of a text all of it, as it is; empty where they are not to be had.
        values: float32 [T], mask in [0, 1]; starts: int32 [T], first base of each token.
        calls: one a rank.
        rank: the rank whose mask it is; None: the mask of all.
        ends: int32 [T], where each token ends; None: where the next begins.
        kept: its segments, where they are not the runs of tokens whose mask rounds to 1.
        kind: what it is.
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
    ends: Int32s | None = None
    kept: tuple[tuple[int, int], ...] | None = None
    kind: Kind = READS

    @property
    def title(self) -> str:
        """Name, with /1 or /2 where there are mates."""
        end = f"/{self.mate}" if self.mate else ""
        return printable(self.read_id.removesuffix(end) + end)

    @property
    def facts(self) -> str:
        """Status unless it is ok, sizes, and the rank if the mask is of one."""
        said = [] if self.status == "ok" else [printable(self.status.replace("_", " "))]
        said.append(self.kind.length(self.length))
        if n := len(self.values):
            of_rank = f" of {printable(self.rank)}" if self.rank else ""
            said += [f"{n:,} token{'s' if n > 1 else ''}", f"mask{of_rank} mean {self.values.mean():.2f}"]
        return ", ".join(said)

    @property
    def letters(self) -> str:
        """The bases as they may be shown, one letter each."""
        return _OTHER.sub("?", self.bases)

    @property
    def told_calls(self) -> tuple[Call, ...]:
        """The calls that are worth a line: all, but of many labels that are yes or no those that are yes.

        Where none is, the few that are nearest to it.
        """
        if not is_multi_label(
            {label for call in self.calls for label in (call.label, call.masked_label)}, len(self.calls)
        ):
            return self.calls
        given = tuple(call for call in self.calls if YES in (call.label, call.masked_label))
        return given or tuple(sorted(self.calls, key=lambda call: 1.0 if call.prob is None else call.prob)[:_FEW])

    def tokens(self) -> Iterator[DrawnToken]:
        """Yield the tokens in read order."""
        # Where ends are not told, white space between two tokens belongs to the first.
        ends = [*self.starts.tolist()[1:], self.length] if self.ends is None else self.ends.tolist()
        for start, end, value in zip(self.starts.tolist(), ends, self.values.tolist(), strict=False):
            yield DrawnToken(start, end, value)

    def segments(self) -> list[tuple[int, int]]:
        """Return the segments, as bases start to end, half-open: runs of tokens whose mask rounds to 1, or of words."""
        if self.kept is not None:
            return list(self.kept)
        runs: list[tuple[int, int]] = []
        joins = False
        for token in self.tokens():
            if token.is_kept:
                runs[-1:] = [(runs[-1][0], token.end)] if joins else [*runs[-1:], (token.start, token.end)]
            joins = token.is_kept
        return runs
