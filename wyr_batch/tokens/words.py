"""Words of texts, made of their tokens.

Two neighbouring tokens are of one word if nothing is between them and both characters at the border are letters, marks
or digits, but no ideographs or kana: scripts written without spaces, whose every character is read as a word.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

from wyr_batch.tokens.tokens import Int32s, Int64s

Bools = npt.NDArray[np.bool_]
Points = npt.NDArray[np.uint32]

_OWN_WORDS = ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))


def code_points(text: str) -> Points:
    """Return the characters of a text as numbers, uint32 [P]."""
    return np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32)


def of_letters(points: Points, is_so: Callable[[int], bool]) -> Bools:
    """Return what a function says of each character, bool [P]; each different one is asked about once."""
    found, place = np.unique(points, return_inverse=True)
    return np.array([is_so(int(point)) for point in found], bool)[place]


def word_numbers(points: Points, starts: Int64s, ends: Int64s, offsets: Int64s) -> Int32s:
    """Return the number of each token's word within its text, from 0, int32 [N].

    Args:
        points: uint32 [P], the characters of all texts, one text after the other.
        starts, ends: int64 [N], places of each token among them; an empty token is of the word before it.
        offsets: int64 [n + 1], text i has tokens offsets[i] to offsets[i + 1].

    >>> text = code_points("unhappy, 20")
    >>> word_numbers(text, np.array([0, 2, 7, 9]), np.array([2, 7, 8, 11]), np.array([0, 4])).tolist()
    [0, 0, 1, 2]
    """
    if not len(starts):
        return np.empty(0, np.int32)
    begins = np.ones(len(starts), bool)
    begins[1:] = starts[1:] != ends[:-1]
    if len(points):
        joins = of_letters(points, is_joining)
        last = np.maximum(ends[:-1] - 1, 0)
        first = np.minimum(starts[1:], len(points) - 1)
        begins[1:] |= ~(joins[last] & joins[first])
    begins[1:] &= starts[1:] != ends[1:]
    begins[offsets[:-1][np.diff(offsets) > 0]] = True
    numbers = np.cumsum(begins)
    first_of_text = numbers[np.minimum(offsets[:-1], len(numbers) - 1)]
    words: Int32s = (numbers - np.repeat(first_of_text, np.diff(offsets))).astype(np.int32)
    return words


@cache
def is_joining(point: int) -> bool:
    """Return whether a character can be inside a word."""
    if any(first <= point <= last for first, last in _OWN_WORDS):
        return False
    return unicodedata.category(chr(point))[0] in "LMN"
