"""Work to results: the batches of a chunk through an engine, windows of long reads stitched, one row a read."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass

import numpy as np

from wyr_batch.engines.base import Engine
from wyr_batch.engines.signature import EngineOutput
from wyr_batch.explain.retry import BatchRunner
from wyr_batch.ranks import rank_slices
from wyr_batch.tokens.batches import kept_tokens, plan_batches
from wyr_batch.tokens.plan import Work
from wyr_batch.tokens.tokens import Int32s, Int64s
from wyr_batch.tokens.windows import Float32s, combine_probs
from wyr_batch.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Explained:
    """Results of a chunk, one row a read in input order; reads without a window hold zeros and -1.

    Attributes:
        mask: float32 [N], one value per token of the chunk.
        rank_masks: float32 [R, N]; [0, N] if they are not wanted.
        explained_ids: int32 [n, R].
        probs, masked_probs: float32 [n, C]; masked_probs [n, 0] without masked calls.
        failed: reads for which the engine gave no result, by index in the chunk, and why; they hold zeros and -1.
        n_run_tokens: tokens that were run, special ones and the overlap of windows included.
        n_padded_tokens: size of the batches that were run, padding included.
    """

    work: Work
    mask: Float32s
    rank_masks: Float32s
    explained_ids: Int32s
    probs: Float32s
    masked_probs: Float32s
    failed: dict[int, str]
    n_run_tokens: int
    n_padded_tokens: int


class ExplainStep:
    """Work to results: runs every batch, copies what repeats, and stitches the windows.

    A read of several windows gets one call, from all of them. Windows that by themselves made another call are
    explained once more for that one, so that the whole mask answers the same question.
    """

    def __init__(
        self,
        engine: Engine,
        explain_row: Int32s,
        check: Callable[[], None] = lambda: None,
        *,
        rank_masks: bool = True,
        masked_calls: bool = True,
    ) -> None:
        """
        Args:
            explain_row: int32 [R], the class to explain per rank, -1 the predicted one.
            check: called before every batch; raises if the run is to end.
            rank_masks: give one mask a rank as well.
            masked_calls: give the probabilities of the masked reads as well, which the engine must compute.
        """
        self.runner = BatchRunner(engine, check)
        self.explain_row = explain_row
        self.rank_masks, self.masked_calls = rank_masks, masked_calls
        self.slices = rank_slices([len(rank.labels) for rank in engine.bundle.ranks])

    def __call__(self, work: Work) -> Explained:
        """Explain a chunk of reads."""
        parts = self.parts(work)
        try:
            while True:
                next(parts)
        except StopIteration as end:
            done: Explained = end.value
            return done
        finally:
            self.runner.wait_for_all()  # what an exception has left under way

    def parts(self, work: Work) -> Generator[None, None, Explained]:
        """Explain a chunk, in three parts if the engine has room for two batches, so that it is never without one.

        Yields: when the first batch is started, before which another chunk's last one may be under way; and when
            only the last is under way, so that another chunk's first one may be started.
        Returns: what `__call__` returns.
        """
        n_windows, n_ranks, n_tokens = len(work.windows), len(self.slices), len(work.tokens.ids)
        n_classes = self.slices[-1].stop
        vocabulary = self.runner.engine.bundle.vocabulary
        sizes = n_windows, n_ranks, n_classes, n_tokens
        buffers = _Buffers(*sizes, self.rank_masks, self.masked_calls, vocabulary)
        wanted = np.broadcast_to(self.explain_row, (n_windows, n_ranks)).copy()
        run = self.runner.begin(work, work.batches, wanted, buffers.failed)
        if (room := self.runner.engine.in_flight - 1) > 0:
            run.start_first()
            yield
            buffers.take(work, run.results(leave=room))
            yield
        buffers.take(work, run.results())
        buffers.copy_repeats(work)

        probs = combine_probs(buffers.probs, work.windows, self.slices)
        explained = self._called(probs)
        explained[np.diff(work.windows.first) == 0] = -1
        wanted = explained[work.windows.read]
        other_call = (buffers.explained_ids != wanted).any(axis=1) & ~work.too_short[work.windows.read]
        other_call[work.repeats.spread(work.windows.first)[0]] = False
        other_call[list(buffers.failed)] = False
        if work.refused:
            other_call &= ~np.isin(work.windows.read, list(work.refused))
        if other_call.any():
            rows = np.flatnonzero(other_call)
            pad_to = self.runner.engine.pad_to
            budget = max(len(batch) * self.runner.n_padded(work, batch) for batch in work.batches)
            counts = work.windows.count[rows]
            again = [rows[batch] for batch in plan_batches(counts, budget, pad_to, vocabulary.n_special)]
            run = self.runner.begin(work, again, wanted, buffers.failed)
            buffers.take(work, run.results(), plain=False)
            buffers.copy_repeats(work)
        masked_probs = np.zeros((len(probs), 0), np.float32)
        if self.masked_calls:
            masked_probs = combine_probs(buffers.masked_probs, work.windows, self.slices)
        failed = dict(work.refused)
        failed |= {int(work.windows.read[window]): reason for window, reason in buffers.failed.items()}
        without = work.too_short.copy()
        without[list(failed)] = True
        for column in (probs, masked_probs):
            column[without] = 0
        explained[without] = -1
        return Explained(
            work=work,
            mask=buffers.mask,
            rank_masks=buffers.rank_masks,
            explained_ids=explained,
            probs=probs,
            masked_probs=masked_probs,
            failed=failed,
            n_run_tokens=buffers.n_run_tokens,
            n_padded_tokens=buffers.n_padded_tokens,
        )

    def _called(self, probs: Float32s) -> Int32s:
        """Return the class to explain of each read, int32 [n, R]: the one asked for, else the most probable."""
        called = np.stack([probs[:, classes].argmax(axis=1) for classes in self.slices], axis=1)
        return np.where(self.explain_row >= 0, self.explain_row, called).astype(np.int32)


class _Buffers:
    """Per-window and per-token results of a chunk while its batches run, in any order."""

    def __init__(
        self,
        n_windows: int,
        n_ranks: int,
        n_classes: int,
        n_tokens: int,
        rank_masks: bool,
        masked_calls: bool,
        vocabulary: Vocabulary,
    ) -> None:
        self.vocabulary = vocabulary
        self.mask = np.zeros(n_tokens, np.float32)
        self.rank_masks = np.zeros((n_ranks if rank_masks else 0, n_tokens), np.float32)
        self.explained_ids = np.full((n_windows, n_ranks), -1, np.int32)
        self.probs = np.zeros((n_windows, n_classes), np.float32)
        self.masked_probs = np.zeros((n_windows, n_classes if masked_calls else 0), np.float32)
        self.failed: dict[int, str] = {}  # window -> why it gave no result
        self.n_run_tokens = 0
        self.n_padded_tokens = 0

    def take(self, work: Work, results: Iterable[tuple[Int64s, int, EngineOutput]], plain: bool = True) -> None:
        """Place the results of batches; plain: those of the plain pass, too."""
        for rows, n_padded, out in results:
            cell, token = kept_tokens(work.windows, rows, n_padded, len(self.vocabulary.prefix))
            self.mask[token] = out.mask.ravel()[cell]
            for r, rank_mask in enumerate(self.rank_masks):
                rank_mask[token] = out.rank_masks[:, r].ravel()[cell]
            self.explained_ids[rows] = out.explained_ids
            if self.masked_probs.shape[1]:
                self.masked_probs[rows] = out.masked_probs
            if plain:
                self.probs[rows] = out.probs
            self.n_run_tokens += int(work.windows.count[rows].sum()) + self.vocabulary.n_special * len(rows)
            self.n_padded_tokens += n_padded * len(rows)

    def copy_repeats(self, work: Work) -> None:
        """Give the reads that repeat others what those have."""
        if not len(work.repeats):
            return
        to, of = work.repeats.spread(work.windows.first)
        for values in (self.explained_ids, self.probs, self.masked_probs):
            values[to] = values[of]
        if self.failed:
            pairs = zip(to.tolist(), of.tolist(), strict=True)
            self.failed |= {window: self.failed[source] for window, source in pairs if source in self.failed}
        to, of = work.repeats.spread(work.tokens.offsets)
        for mask in (self.mask, *self.rank_masks):
            mask[to] = mask[of]
