"""Reads to work: tokens, windows and batches of a chunk, laid out before any of it is run."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.tokens.batches import plan_batches
from wyr_batch.tokens.kmers import KmerTokenizer
from wyr_batch.tokens.repeats import Repeats, find_repeats
from wyr_batch.tokens.tokens import Int64s, Tokenizer, Tokens
from wyr_batch.tokens.windows import Windows, cut_windows
from wyr_batch.vocabulary import SIX_MERS, Vocabulary


@dataclass(frozen=True, slots=True)
class Work:
    """A chunk of reads, ready for the engine.

    Attributes:
        too_short: bool [n], reads below --min-length; they have no windows.
        repeats: reads whose results are those of an earlier read of the chunk; their windows are in no batch.
        batches: indices of windows, one array a batch.
        refused: reads that the model cannot be given, by their index, and why; their windows are in no batch.
        digest: checksums of all reads of the run up to the chunk's end.
    """

    chunk: ReadChunk
    tokens: Tokens
    too_short: npt.NDArray[np.bool_]
    windows: Windows
    repeats: Repeats
    batches: list[Int64s]
    refused: dict[int, str] = field(default_factory=dict)
    digest: tuple[int, ...] = ()


class Planner:
    """Reads to work: tokens, windows and batches. Holds nothing between chunks."""

    def __init__(
        self,
        window_tokens: int,
        overlap_tokens: int,
        batch_tokens: int,
        min_length: int = 0,
        pad_to: int = 1,
        tokenizer: Tokenizer | None = None,
        vocabulary: Vocabulary = SIX_MERS,
    ) -> None:
        """
        Args:
            batch_tokens: padded tokens of a batch; pad_to: rows are padded to a multiple of this (`Engine.pad_to`).
            tokenizer, vocabulary: of the bundle; left out: 6-mers.
        """
        self.window_tokens, self.overlap_tokens = window_tokens, overlap_tokens
        self.batch_tokens, self.min_length, self.pad_to = batch_tokens, min_length, pad_to
        self.tokenizer, self.vocabulary = tokenizer or KmerTokenizer(), vocabulary

    def plan(self, chunk: ReadChunk, digest: tuple[int, ...] = ()) -> Work:
        """Tokenise a chunk and lay out its batches; `digest`: checksums of all reads up to its end."""
        tokens = self.tokenizer.tokenise(chunk)
        too_short = chunk.lengths < self.min_length
        windows = cut_windows(tokens.offsets, self.window_tokens, self.overlap_tokens)
        n_windows = np.diff(windows.first)
        left_out = too_short.copy()
        refused = {read: why for read, why in tokens.refused if not too_short[read]}
        if chunk.second is not None:  # each window would need both texts
            cut = np.flatnonzero((n_windows > 1) & (chunk.second >= 0) & ~too_short)
            most = self.window_tokens
            refused |= {int(i): f"a pair of {tokens.counts[i]:,} tokens, which takes {most:,} at most" for i in cut}
        left_out[list(refused)] = True
        repeats = find_repeats(tokens, (n_windows > 0) & ~left_out)
        left_out[repeats.read] = True
        runnable = np.flatnonzero(~left_out[windows.read])
        budget = (self.batch_tokens, self.pad_to, self.vocabulary.n_special)
        batches = [runnable[batch] for batch in plan_batches(windows.count[runnable], *budget)]
        return Work(chunk, tokens, too_short, windows, repeats, batches, refused, digest)


def plan_chunks(
    chunks: Generator[tuple[ReadChunk, tuple[int, ...]], None, None], planner: Planner
) -> Generator[Work, None, None]:
    """Yield the work of each chunk, which comes with the checksums up to its end; closes `chunks` when it is closed."""
    with closing(chunks):
        for chunk, digest in chunks:
            yield planner.plan(chunk, digest)
