"""Batches by token budget: windows of like length together, so that hardly any padding is computed."""

from __future__ import annotations

import numpy as np

from wyr_batch.tokens.tokens import Int16s, Int32s, Int64s
from wyr_batch.tokens.windows import Windows
from wyr_batch.vocabulary import SIX_MERS, Vocabulary


def padded_length(n_tokens: int, pad_to: int, most: int) -> int:
    """Return the next multiple of `pad_to`, but no more than `most`.

    >>> padded_length(251, 8, 512), padded_length(509, 8, 510)
    (256, 510)
    """
    return max(n_tokens, min(-(-n_tokens // pad_to) * pad_to, most))


def plan_batches(counts: Int64s, max_batch_tokens: int, pad_to: int = 1, n_special: int = 1) -> list[Int64s]:
    """Group windows into batches whose padded size stays within the budget.

    What two batches hold at the end is shared between them half and half, so that none is a stub.

    Args:
        counts: int64 [W], tokens per window, special ones not counted.
        max_batch_tokens: longest row (with special tokens) times rows; a single longer row is a batch of its own.
        pad_to: rows are padded to a multiple of this.
        n_special: special tokens of a row.
    Returns: index arrays, longest windows first; every window is in one of them.

    >>> [b.tolist() for b in plan_batches(np.array([3, 9, 3, 4]), 10)]
    [[1], [3, 0], [2]]
    >>> [len(b) for b in plan_batches(np.full(9, 9), 80)]
    [5, 4]
    """
    order = np.argsort(-counts, kind="stable")
    batches = []
    at = 0
    while at < len(order):
        longest = int(counts[order[at]]) + n_special
        n_rows = max(1, max_batch_tokens // (-(-longest // pad_to) * pad_to))
        n_left = len(order) - at
        if n_rows < n_left < 2 * n_rows:
            n_rows = (n_left + 1) // 2
        batches.append(order[at : at + n_rows])
        at += n_rows
    return batches


def pad_batch(
    ids: Int16s | Int32s,
    windows: Windows,
    rows: Int64s,
    n_padded: int | None = None,
    vocabulary: Vocabulary = SIX_MERS,
) -> Int32s:
    """Return input_ids int32 [B, T] of the given windows: special tokens, tokens, special tokens, padding.

    Args:
        ids: int16 or int32 [N], the token ids of the chunk.
        rows: int64 [B], indices of windows.
        n_padded: T; None is the longest row.
    """
    counts = windows.count[rows]
    before, suffix = len(vocabulary.prefix), vocabulary.suffix
    longest = int(counts.max()) + vocabulary.n_special
    place = np.arange((longest if n_padded is None else n_padded) - before)[None, :]
    inside = place < counts[:, None]
    tokens = ids[np.minimum(windows.start[rows][:, None] + place, len(ids) - 1)]
    padded = np.empty((len(rows), place.shape[1] + before), np.int32)
    padded[:, :before] = vocabulary.prefix
    padded[:, before:] = np.where(inside, tokens, vocabulary.pad_id)
    if suffix:
        padded[np.arange(len(rows))[:, None], before + counts[:, None] + np.arange(len(suffix))] = suffix
    return padded


def kept_tokens(windows: Windows, rows: Int64s, n_columns: int, n_before: int = 1) -> tuple[Int64s, Int64s]:
    """Return which cells of a batch's output are kept, and the tokens they belong to.

    Args:
        rows: int64 [B], indices of windows; n_columns: T; n_before: special tokens before a row's own.
    Returns: int64 [K] indices in the flattened [B, T] output, and int64 [K] token indices.
    """
    first = windows.keep_start[rows]
    counts = windows.keep_end[rows] - first
    place = np.arange(int(counts.sum()))
    bounds = np.cumsum(counts) - counts
    token = place + np.repeat(first - bounds, counts)
    row_starts = np.arange(len(rows)) * n_columns + n_before + first - windows.start[rows]
    return place + np.repeat(row_starts - bounds, counts), token
