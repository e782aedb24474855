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
    """Bases start to end, half-open, of one level, 0 to LEVELS - 1; None where no token is."""

    start: int
    end: int
    level: int | None

    @property
    def is_kept(self) -> bool:
        """True if it is part of a segment."""
        return self.level is not None and self.level >= KEPT_LEVEL


def level_of(value: float) -> int:
    """Return the level of a mask value.

    >>> level_of(0.0), level_of(0.499), level_of(0.5), level_of(1.0)
    (0, 7, 8, 15)
    """
    return min(max(int(value * LEVELS), 0), LEVELS - 1)


def runs_of(read: DrawnRead) -> list[Run]:
    """Return the runs of a read, in order; together they are all of its bases."""
    runs: list[Run] = []

    def add(start: int, end: int, level: int | None) -> None:
        if start >= end:
            return
        if runs and runs[-1].level == level:
            start = runs.pop().start
        runs.append(Run(start, end, level))

    for token in read.tokens():
        add(runs[-1].end if runs else 0, token.start, None)
        add(token.start, token.end, level_of(token.value))
    add(runs[-1].end if runs else 0, read.length, None)
    return runs


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
            block.append(Run(start, end, run.level))
            start = end
            if end % size == 0:
                yield block
                block = []
    if block:
        yield block
