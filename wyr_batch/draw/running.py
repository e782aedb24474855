"""Running text: which letters may be shown, how wide they are in a terminal, and where lines end.

A cluster is what a reader takes for one letter: a letter with its combining marks, an emoji of several code points.
Lines are cut between clusters, at white space or beside ideographs where there are any.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from wyr_batch.draw.runs import Run

# Invisible, and part of how letters are joined or in which direction they run; they steer no terminal.
_JOINERS = "\u200c\u200d\u200e\u200f"
_ZWJ = "\u200d"
_FLAG_LETTERS = "\U0001f1e6\U0001f1ff"  # the first and the last; two of them are a flag


def shown_letter(letter: str) -> str:
    r"""Return a code point of a text as it may be shown: what is no printable letter becomes an escape, a tab a space.

    >>> shown_letter("é"), shown_letter("\x1b"), shown_letter("\u202e"), shown_letter("\t")
    ('é', '\\x1b', '\\u202e', ' ')
    """
    if letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs":
        return letter
    return " " if letter == "\t" else letter.encode("unicode_escape").decode()


def cells_of(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    from rich.cells import cell_len  # here: who only computes needs no rich

    return cell_len(text)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Code points start to end of a text, drawn as one.

    Attributes:
        shown: as it may be shown; empty for a line break.
        cells: how wide it is in a terminal.
    """

    start: int
    end: int
    shown: str
    cells: int

    @property
    def is_break(self) -> bool:
        return not self.shown

    @property
    def is_space(self) -> bool:
        return self.shown.isspace()

    @property
    def is_wide(self) -> bool:
        """True for ideographs and other letters of two cells, beside which a line may end."""
        return len(self.shown) == 1 and cells_of(self.shown) > 1


def clusters(text: str) -> Iterator[Cluster]:
    r"""Yield the clusters of a text, in order; together they are all of it.

    Line breaks are `\n` and `\r\n`; a `\r` alone would take a terminal back to the start of its line, and is an escape.

    >>> [(c.start, c.end, c.cells) for c in clusters("e\u0301中\r\n\x1b")]
    [(0, 2, 1), (2, 3, 2), (3, 5, 0), (5, 6, 4)]
    """
    start, n = 0, len(text)
    while start < n:
        if text[start] == "\n" or text.startswith("\r\n", start):
            end = start + (1 if text[start] == "\n" else 2)
            yield Cluster(start, end, "", 0)
            start = end
            continue
        end, shown = start + 1, shown_letter(text[start])
        while shown == text[start:end] and end < n and _goes_on(text, start, end):
            end += 1
            shown = text[start:end]
        yield Cluster(start, end, shown, cells_of(shown))
        start = end


def _goes_on(text: str, start: int, at: int) -> bool:
    """True if the code point at a place belongs to the cluster before it, which begins at `start`."""
    letter = text[at]
    if shown_letter(letter) != letter:
        return False
    is_mark = unicodedata.category(letter).startswith("M") or "\U0001f3fb" <= letter <= "\U0001f3ff"
    is_flag = (
        at == start + 1 and _FLAG_LETTERS[0] <= min(text[start], letter) <= max(text[start], letter) <= _FLAG_LETTERS[1]
    )
    return is_mark or is_flag or letter in _JOINERS or text[at - 1] == _ZWJ


def wrapped(found: list[Cluster], cells: int) -> Iterator[list[Cluster]]:
    """Yield the lines of a text, each as clusters, of at most `cells` cells and one space; a wider cluster is alone.

    >>> ["".join(c.shown for c in line) for line in wrapped(list(clusters("one two, three")), 8)]
    ['one two, ', 'three']
    """
    line: list[Cluster] = []
    used = cut = 0  # cells of the line; how many of its clusters may stand before a line end
    for cluster in found:
        while line and not (cluster.is_break or cluster.is_space) and used + cluster.cells > cells:
            at = len(line) if cluster.is_wide else cut or len(line)
            yield line[:at]
            line, cut = line[at:], 0
            used = sum(c.cells for c in line)
        line.append(cluster)
        used += cluster.cells
        if cluster.is_break or (cluster.is_space and used > cells):
            yield line
            line, used, cut = [], 0, 0
        elif cluster.is_space or cluster.is_wide:
            cut = len(line)
    if line:
        yield line


def runs_by_cluster(found: list[Cluster], runs: list[Run]) -> dict[int, Run]:
    """Return the run of each cluster, that of its first code point, by the place where it starts."""
    left = iter(runs)
    run = next(left, None)
    by_start: dict[int, Run] = {}
    for cluster in found:
        while run is not None and run.end <= cluster.start:
            run = next(left, None)
        if run is not None:
            by_start[cluster.start] = run
    return by_start
