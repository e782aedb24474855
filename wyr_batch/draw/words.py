"""Words of a text, and the segments that are made of them."""

from __future__ import annotations

import numpy as np

from wyr_batch.draw.read import KEPT
from wyr_batch.tokens.tokens import Int32s
from wyr_batch.tokens.windows import Float32s
from wyr_batch.tokens.words import code_points
from wyr_batch.tokens.words import word_numbers as numbers_of_words


def word_numbers(text: str, starts: Int32s, ends: Int32s) -> Int32s:
    """Return the word of each token, numbered from 0, int32 [T], as `tokens.words` has it.

    Args:
        text: empty where it is not to be had; then all tokens that touch are of one word.
        starts, ends: int32 [T], code points, half-open.

    >>> word_numbers("unhappy, 20", np.array([0, 2, 7, 9]), np.array([2, 7, 8, 11])).tolist()
    [0, 0, 1, 2]
    """
    places = starts.astype(np.int64), ends.astype(np.int64)
    return numbers_of_words(code_points(text), *places, np.array([0, len(starts)], np.int64))


def word_segments(values: Float32s, starts: Int32s, ends: Int32s, words: Int32s) -> list[tuple[int, int, float]]:
    """Return start, end and mean mask of each run of words whose mean mask is 0.5 or more.

    Args:
        values: float32 [T]; starts, ends: int32 [T]; words: int32 [T], the word of each token, ascending.
    """
    first = np.flatnonzero(np.diff(words, prepend=-1))
    if not len(first):
        return []
    bounds = np.append(first, len(words))
    sums = np.concatenate(([0.0], np.cumsum(values, dtype=np.float64)))
    kept = (sums[bounds[1:]] - sums[bounds[:-1]]) / np.diff(bounds) >= KEPT
    edges = np.flatnonzero(np.diff(np.concatenate(([False], kept, [False])).astype(np.int8)))
    return [
        (int(starts[a]), int(ends[b - 1]), float((sums[b] - sums[a]) / (b - a)))
        for a, b in zip(bounds[edges[::2]], bounds[edges[1::2]], strict=True)
    ]
