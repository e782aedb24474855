"""Mask values to few colours: stretches of a read whose tokens are drawn alike.

A picture has one shape a run, not one a base, so that it stays small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from wyr_batch.draw.read import KEPT, DrawnRead

LEVELS = 16
KEPT_LEVEL = int(KEPT * LEVELS)  # tokens of this level or more are those of segments


@dataclass(frozen=True, slots=True)
class Run:
    """Bases start to end, of one level, 0 to LEVELS - 1 or None where no token is; all or none in a segment."""

    start: int
    end: int
    level: int | None
    is_kept: bool = False


def level_of(value: float) -> int:
    """Return the level of a mask value.

    >>> level_of(0.0), level_of(0.499), level_of(0.5), level_of(1.0)
    (0, 7, 8, 15)
    """
    return min(max(int(value * LEVELS), 0), LEVELS - 1)


def runs_of(read: DrawnRead) -> list[Run]:
    """Return the runs of a read, in order; together they are all of its bases. Segments begin and end with tokens."""
    runs: list[Run] = []

    def add(start: int, end: int, level: int | None, is_kept: bool) -> None:
        if start >= end:
            return
        if runs and (runs[-1].level, runs[-1].is_kept) == (level, is_kept):
            start = runs.pop().start
        runs.append(Run(start, end, level, is_kept))

    segments = iter([*read.segments(), (read.length, read.length)])
    first, last = next(segments)
    for start, end, level in _stretches(read):
        while last <= start < read.length:
            first, last = next(segments)
        add(start, end, level, first <= start and end <= last)
    return runs


def _stretches(read: DrawnRead) -> Iterator[tuple[int, int, int | None]]:
    """Yield start, end and level of tokens and of what lies between them."""
    done = 0
    for token in read.tokens():
        yield done, token.start, None
        yield token.start, token.end, level_of(token.value)
        done = token.end
    yield done, read.length, None


def cut_runs(runs: list[Run], size: int) -> Iterator[list[Run]]:
    """Yield the runs of each `size` bases.

    >>> [[(run.start, run.end) for run in block] for block in cut_runs([Run(0, 12, 3), Run(12, 15, 9)], 10)]
    [[(0, 10)], [(10, 12), (12, 15)]]
    """
    block: list[Run] = []
    for run in runs:
        start = run.start
        while start < run.end:
            end = min(run.end, start - start % size + size)
            block.append(Run(start, end, run.level, run.is_kept))
            start = end
            if end % size == 0:
                yield block
                block = []
    if block:
        yield block
