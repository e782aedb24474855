"""Batches on an engine that may run out of memory, or fail on a read.

A batch for which memory does not suffice is halved, and later batches are kept below the size that failed. A batch
that fails otherwise is halved too, until the read is alone that cannot be explained; it gets no result, and a reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from wyr_batch.engines.base import Engine
from wyr_batch.engines.signature import EngineOutput
from wyr_batch.errors import EngineError, OutOfMemory
from wyr_batch.tokens.batches import pad_batch, padded_length
from wyr_batch.tokens.tokens import Int32s, Int64s

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from wyr_batch.tokens.plan import Work

# So many failed windows in a row are the engine's fault, not the reads'.
MAX_FAILED_IN_A_ROW = 64


class BatchRunner:
    """Runs batches of windows.

    Attributes:
        most_tokens: padded tokens of a batch that memory is known not to suffice for, None while it always has.
    """

    def __init__(self, engine: Engine, check: Callable[[], None] = lambda: None) -> None:
        """
        Args:
            check: called before every batch; raises if the run is to end.
        """
        self.engine = engine
        self.check = check
        self.most_tokens: int | None = None
        self._failed_in_a_row = 0

    def run(
        self, work: Work, rows: Int64s, wanted: Int32s, failed: dict[int, str]
    ) -> Iterator[tuple[Int64s, int, EngineOutput]]:
        """Run one planned batch, in as few pieces as go.

        Args:
            rows: int64 [B], indices of windows.
            wanted: int32 [W, R], the class to explain per window of the chunk, -1 the predicted one.
            failed: takes the reason for every window that gives no result.
        Yields: rows, padded tokens per row and the results of each piece.
        Raises: EngineError if window after window fails.
        """
        n_padded = self.n_padded(work, rows)
        n_most = len(rows) if self.most_tokens is None else max(1, (self.most_tokens - 1) // n_padded)
        if len(rows) > n_most:
            for at in range(0, len(rows), n_most):
                yield from self.run(work, rows[at : at + n_most], wanted, failed)
            return
        self.check()
        out = self._infer(work, rows, wanted, n_padded)
        if isinstance(out, EngineError):
            yield from self._after(out, work, rows, wanted, failed)
            return
        finite = np.isfinite(out.probs).all(axis=1) & np.isfinite(out.masked_probs).all(axis=1)
        finite &= np.isfinite(out.mask).all(axis=1)
        if not finite.all():
            for row in rows[~finite]:
                self._give_up(int(row), "the model's numbers are not finite", failed)
            rows, out = rows[finite], EngineOutput._make(values[finite] for values in out)
        if len(rows):
            self._failed_in_a_row = 0
            yield rows, n_padded, out

    def _infer(self, work: Work, rows: Int64s, wanted: Int32s, n_padded: int) -> EngineOutput | EngineError:
        """Return what the engine gives or raises; nothing of a batch that failed is held once this returns."""
        input_ids = pad_batch(work.tokens.ids, work.windows, rows, n_padded, self.engine.bundle.vocabulary)
        try:
            return self.engine.infer(input_ids, np.ascontiguousarray(wanted[rows], np.int32))
        except EngineError as error:
            return error.with_traceback(None)

    def _after(
        self, error: EngineError, work: Work, rows: Int64s, wanted: Int32s, failed: dict[int, str]
    ) -> Iterator[tuple[Int64s, int, EngineOutput]]:
        if isinstance(error, OutOfMemory):
            size = len(rows) * self.n_padded(work, rows)
            if len(rows) > 1:
                logger.warning(
                    "out of memory with %d reads, %s padded tokens: halving the batch", len(rows), f"{size:,}"
                )
                self.most_tokens = min(size, self.most_tokens or size)
        if len(rows) == 1:
            self._give_up(int(rows[0]), "out of memory" if isinstance(error, OutOfMemory) else str(error), failed)
            if self._failed_in_a_row >= MAX_FAILED_IN_A_ROW:
                raise error
            return
        for half in np.array_split(rows, 2):
            yield from self.run(work, half, wanted, failed)

    def n_padded(self, work: Work, rows: Int64s) -> int:
        """Return the tokens that each of these windows is padded to, special ones counted."""
        bundle = self.engine.bundle
        longest = int(work.windows.count[rows].max()) + bundle.vocabulary.n_special
        return padded_length(longest, self.engine.pad_to, bundle.max_tokens)

    def _give_up(self, row: int, reason: str, failed: dict[int, str]) -> None:
        failed[row] = reason
        self._failed_in_a_row += 1
