"""Segments: runs of tokens, of texts of whole words, whose mask rounds to 1, in bases (code points) of the read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wyr_batch.tokens.tokens import NO_WORD, Int32s, Int64s, Tokens

KEPT = 0.5


@dataclass(frozen=True, slots=True)
class Segments:
    """Segments of consecutive reads.

    Attributes:
        start, end: int32 [S], bases of the read, half-open.
        mean: float32 [S], mean mask over the segment's tokens.
        offsets: int64 [n + 1], segments of read i are offsets[i] to offsets[i + 1].
    """

    start: Int32s
    end: Int32s
    mean: npt.NDArray[np.float32]
    offsets: Int64s


def token_ends(tokens: Tokens, lengths: Int64s) -> Int32s:
    """Return where each token ends, int32 [N]: if it does not say, at the next token of its read, or the read's end."""
    if tokens.ends is not None:
        return tokens.ends
    ends = np.empty(len(tokens.starts), np.int32)
    ends[:-1] = tokens.starts[1:]
    has_any = tokens.counts > 0
    ends[tokens.offsets[1:][has_any] - 1] = lengths[has_any]
    return ends


def running_sum(mask: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return [0, sum of the first, of the first two, ...], float64 [N + 1]."""
    sums = np.zeros(len(mask) + 1)
    np.cumsum(mask, dtype=np.float64, out=sums[1:])
    return sums


def find_segments(
    mask: npt.NDArray[np.float32], sums: npt.NDArray[np.float64], tokens: Tokens, lengths: Int64s
) -> Segments:
    """Return the segments of a chunk of reads.

    Args:
        mask: float32 [N], one value per token; sums: float64 [N + 1], its `running_sum`.
        lengths: int64 [n], bases per read.
    """
    kept = (mask if tokens.words is None else _word_means(mask, sums, tokens)) >= KEPT
    # A segment starts at a kept token that is its read's first or follows one that is not kept.
    starts_read = np.zeros(len(mask) + 1, bool)
    starts_read[tokens.offsets] = True
    before = np.concatenate(([False], kept[:-1])) & ~starts_read[:-1]
    after = np.concatenate((kept[1:], [False])) & ~starts_read[1:]
    first = np.flatnonzero(kept & ~before)
    last = np.flatnonzero(kept & ~after)
    mean = (sums[last + 1] - sums[first]) / (last + 1 - first)
    return Segments(
        start=tokens.starts[first],
        end=token_ends(tokens, lengths)[last],
        mean=mean.astype(np.float32),
        offsets=np.searchsorted(first, tokens.offsets).astype(np.int64),
    )


def _word_means(
    mask: npt.NDArray[np.float32], sums: npt.NDArray[np.float64], tokens: Tokens
) -> npt.NDArray[np.float64]:
    """Return for each token the mean mask of its word, float64 [N]; 0 where it is of none."""
    assert tokens.words is not None
    begins = np.ones(len(mask), bool)
    begins[1:] = tokens.words[1:] != tokens.words[:-1]
    begins[tokens.offsets[:-1][tokens.counts > 0]] = True
    first = np.flatnonzero(begins)
    n_tokens = np.diff(first, append=len(mask))
    means = (sums[first + n_tokens] - sums[first]) / n_tokens
    return np.where(tokens.words == NO_WORD, 0.0, np.repeat(means, n_tokens))
