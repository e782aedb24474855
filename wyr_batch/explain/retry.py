"""Batches on an engine that may run out of memory, or fail on a read.

A batch for which memory does not suffice is halved, and later batches are no larger than those halves. A batch that
fails otherwise is halved too, until the read is alone that cannot be explained; it gets no result, and a reason.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wyr_batch.engines.base import Engine, Started
from wyr_batch.engines.signature import EngineOutput
from wyr_batch.errors import EngineError, OutOfMemory
from wyr_batch.tokens.batches import pad_batch, padded_length
from wyr_batch.tokens.tokens import Int32s, Int64s

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from wyr_batch.tokens.plan import Work

# So many failed windows in a row are the engine's fault, not the reads'.
MAX_FAILED_IN_A_ROW = 64


@dataclass(slots=True, eq=False)
class _Piece:
    """Rows given to the engine, and what came of it once it has been waited for.

    Attributes:
        alone: nothing else has been under way beside it.
    """

    rows: Int64s
    n_padded: int
    alone: bool
    started: Started | None = None
    out: EngineOutput | None = None
    failure: EngineError | None = None


class BatchRunner:
    """Runs batches of windows.

    Attributes:
        most_tokens: batches stay below so many padded tokens, because memory has run out; None while it never has.
        failed_in_a_row: windows that have given no result since the last one that has.
        under_way: what has been started and not waited for, in the order in which it was started; of two chunks where
            one ends as the next one begins.
    """

    def __init__(self, engine: Engine, check: Callable[[], None] = lambda: None) -> None:
        """
        Args:
            check: called before every batch; raises if the run is to end.
        """
        self.engine = engine
        self.check = check
        self.most_tokens: int | None = None
        self.failed_in_a_row = 0
        self.under_way: list[_Piece] = []

    def begin(self, work: Work, batches: Iterable[Int64s], wanted: Int32s, failed: dict[int, str]) -> BatchRun:
        """Return a run of a chunk's batches, of which none has been started.

        Args:
            batches: int64 [B] each, indices of windows.
            wanted: int32 [W, R], the class to explain per window of the chunk, -1 the predicted one.
            failed: takes the reason for every window that gives no result.
        """
        return BatchRun(self, work, batches, wanted, failed)

    def n_padded(self, work: Work, rows: Int64s) -> int:
        """Return the tokens that each of these windows is padded to, special ones counted."""
        counts, bundle = work.windows.count[rows], self.engine.bundle
        alike = not self.engine.pads_equal_rows and counts.min() == counts.max()
        longest = int(counts.max()) + bundle.vocabulary.n_special
        return padded_length(longest, 1 if alike else self.engine.pad_to, bundle.max_tokens)

    def n_most(self, n_padded: int) -> int | None:
        """Return how many rows of so many tokens a batch may have, None if any number."""
        return None if self.most_tokens is None else max(1, (self.most_tokens - 1) // n_padded)

    def start(self, work: Work, rows: Int64s, wanted: Int32s) -> _Piece:
        """Give rows to the engine; nothing of them is held where it has not taken them."""
        self.check()
        piece = _Piece(rows, self.n_padded(work, rows), alone=not self.under_way)
        for other in self.under_way:
            other.alone = False
        input_ids = pad_batch(work.tokens.ids, work.windows, rows, piece.n_padded, self.engine.bundle.vocabulary)
        try:
            piece.started = self.engine.start(input_ids, np.ascontiguousarray(wanted[rows], np.int32))
        except EngineError as error:
            piece.failure = error.with_traceback(None)
        else:
            self.under_way.append(piece)
        return piece

    def wait(self, piece: _Piece) -> None:
        """Wait for a piece, unless that has been done; nothing of its batch is held once this returns."""
        if piece.started is None:
            return
        started, piece.started = piece.started, None
        self.under_way.remove(piece)
        try:
            piece.out = self.engine.finish(started)
        except EngineError as error:
            piece.failure = error.with_traceback(None)

    def wait_for_all(self) -> None:
        """Wait for all that is under way, of whatever chunk, so that all of the device's memory is free."""
        for piece in list(self.under_way):
            self.wait(piece)


class BatchRun:
    """The batches of one chunk on their way through an engine: still to start, or started and not looked at."""

    def __init__(
        self, runner: BatchRunner, work: Work, batches: Iterable[Int64s], wanted: Int32s, failed: dict[int, str]
    ) -> None:
        self._runner, self._work, self._wanted, self._failed = runner, work, wanted, failed
        self._to_start = deque(batches)
        self._started: deque[_Piece] = deque()

    def start_first(self) -> None:
        """Start one batch, if there is one."""
        if self._to_start:
            self._start_next()

    def results(self, leave: int = 0) -> Iterator[tuple[Int64s, int, EngineOutput]]:
        """Run all batches, in as few pieces as go, the next one started before one is waited for if there is room.

        Args:
            leave: stop when no more than so many are left to wait for, and none to start.
        Yields: rows, padded tokens per row and the results of each piece.
        Raises: EngineError if window after window fails.
        """
        while self._to_start or len(self._started) > leave:
            if self._to_start and self._has_room():
                self._start_next()
            else:
                yield from self._finish(self._started.popleft())

    def _has_room(self) -> bool:
        """Say whether to start a batch before the next one is waited for; not before the halves of one that failed."""
        if not self._started:
            return True
        has_failed = any(piece.failure for piece in self._started)
        return not has_failed and len(self._runner.under_way) < self._runner.engine.in_flight

    def _start_next(self) -> None:
        rows = self._to_start.popleft()
        n_most = self._runner.n_most(self._runner.n_padded(self._work, rows))
        if n_most and len(rows) > n_most:
            rows, *later = (rows[at : at + n_most] for at in range(0, len(rows), n_most))
            self._to_start.extendleft(reversed(later))
        self._started.append(self._runner.start(self._work, rows, self._wanted))

    def _finish(self, piece: _Piece) -> Iterator[tuple[Int64s, int, EngineOutput]]:
        self._runner.wait(piece)
        if piece.out is None:  # outside the handlers: nothing of the batch is held while its halves run
            yield from self._after(piece)
            return
        rows, out = piece.rows, piece.out
        finite = np.isfinite(out.probs).all(axis=1) & np.isfinite(out.masked_probs).all(axis=1)
        finite &= np.isfinite(out.mask).all(axis=1)
        if not finite.all():
            for row in rows[~finite]:
                self._give_up(int(row), "the model's numbers are not finite")
            rows, out = rows[finite], EngineOutput._make(values[finite] for values in out)
        if len(rows):
            self._runner.failed_in_a_row = 0
            yield rows, piece.n_padded, out

    def _after(self, piece: _Piece) -> Iterator[tuple[Int64s, int, EngineOutput]]:
        """Wait for what else is under way, so that all memory is there, and go on with a failed piece half by half."""
        runner, rows, error = self._runner, piece.rows, piece.failure
        assert error is not None
        runner.wait_for_all()
        if isinstance(error, OutOfMemory):
            size = len(rows) * piece.n_padded
            if len(rows) == 1 and not piece.alone:
                yield from self._finish(runner.start(self._work, rows, self._wanted))
                return
            if len(rows) > 1:
                logger.warning(
                    "out of memory with %d reads, %s padded tokens: halving the batch", len(rows), f"{size:,}"
                )
                half = size // 2 + 1
                runner.most_tokens = min(half, runner.most_tokens or half)
        if len(rows) == 1:
            self._give_up(int(rows[0]), "out of memory" if isinstance(error, OutOfMemory) else str(error))
            if runner.failed_in_a_row >= MAX_FAILED_IN_A_ROW:
                raise error
            return
        self._to_start.extendleft(reversed(np.array_split(rows, 2)))

    def _give_up(self, row: int, reason: str) -> None:
        self._failed[row] = reason
        self._runner.failed_in_a_row += 1
