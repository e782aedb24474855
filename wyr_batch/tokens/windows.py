"""Reads longer than the model takes: cut into overlapping windows of tokens, and stitched back.

    read     |------------------------------------------|
    windows  |=================|
                          |=================|
                                       |================|   the last one is moved back to be whole
    kept     |---------------||------------||------------|  each overlap is shared half and half

Windows are cut between tokens, so a window holds the very tokens the whole read has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wyr_batch.tokens.tokens import Int64s

Float32s = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of consecutive reads, in read order.

    Attributes:
        read: int64 [W], index of the read in its chunk.
        start, count: int64 [W], first token (counted over the whole chunk) and number of tokens.
        keep_start, keep_end: int64 [W], tokens whose values come from this window; together each read's tokens.
        first: int64 [n + 1], windows of read i are first[i] to first[i + 1].
    """

    read: Int64s
    start: Int64s
    count: Int64s
    keep_start: Int64s
    keep_end: Int64s
    first: Int64s

    def __len__(self) -> int:
        return len(self.read)


def cut_windows(offsets: Int64s, window_tokens: int, overlap_tokens: int) -> Windows:
    """Cut reads into windows of at most `window_tokens`, consecutive ones overlapping by `overlap_tokens` or more.

    Args:
        offsets: int64 [n + 1], read i holds tokens offsets[i] to offsets[i + 1].
        overlap_tokens: less than window_tokens.
    Returns: Windows; a read without tokens has none.

    >>> w = cut_windows(np.array([0, 10, 12]), 6, 2)
    >>> w.start.tolist(), w.count.tolist(), w.keep_start.tolist(), w.keep_end.tolist()
    ([0, 4, 10], [6, 6, 2], [0, 5, 10], [5, 10, 12])
    """
    counts = np.diff(offsets)
    stride = window_tokens - overlap_tokens
    per_read = np.where(
        counts > window_tokens, -(-(counts - window_tokens) // stride) + 1, (counts > 0).astype(np.int64)
    )
    first = np.concatenate(([0], np.cumsum(per_read)))
    read = np.repeat(np.arange(len(counts)), per_read)
    place = np.arange(first[-1]) - first[read]
    count = np.minimum(counts[read], window_tokens)
    start = offsets[read] + np.minimum(place * stride, counts[read] - count)
    # The border between two windows of one read is the middle of what they share.
    end = start + count
    follows = np.zeros(len(read), bool)
    follows[1:] = read[1:] == read[:-1]
    border = np.zeros(len(read), np.int64)
    border[1:] = (start[1:] + end[:-1]) // 2
    keep_start = np.where(follows, border, start)
    keep_end = end.copy()
    keep_end[:-1] = np.where(follows[1:], border[1:], end[:-1])
    return Windows(read, start, count, keep_start, keep_end, first)


def combine_probs(probs: Float32s, windows: Windows, slices: list[slice]) -> Float32s:
    """Combine the windows of each read into one distribution per rank.

    Log-probabilities are averaged, weighted by the tokens each window answers for. For a mean-pooled classifier with
    linear heads this is what pooling over all windows at once would give.

    Args:
        probs: float32 [W, C]; slices: the classes of each rank.
    Returns: float32 [n, C]; rows of reads without a window are 0.
    """
    n_reads = len(windows.first) - 1
    has_any = np.diff(windows.first) > 0
    if len(windows) == has_any.sum():  # one window a read: nothing to combine
        out = np.zeros((n_reads, probs.shape[1]), np.float32)
        out[windows.read] = probs
        return out
    weight = (windows.keep_end - windows.keep_start).astype(np.float64)
    logs = np.log(np.maximum(probs.astype(np.float64), 1e-30)) * weight[:, None]
    starts = windows.first[:-1][has_any]
    means = np.add.reduceat(logs, starts, axis=0) / np.add.reduceat(weight, starts)[:, None]
    combined = np.empty_like(means)
    for classes in slices:
        part = np.exp(means[:, classes] - means[:, classes].max(axis=1, keepdims=True))
        combined[:, classes] = part / part.sum(axis=1, keepdims=True)
    out = np.zeros((n_reads, probs.shape[1]), np.float32)
    out[has_any] = combined
    # A read of one window keeps its numbers to the last bit.
    single = np.flatnonzero(np.diff(windows.first) == 1)
    out[single] = probs[windows.first[single]]
    return out
