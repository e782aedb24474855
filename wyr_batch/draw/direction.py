"""Where letters of scripts that run from right to left stand in a line, after Unicode annex 9.

A picture places stretches of a line by itself, so it must know their order: a paragraph runs in the direction of its
first letter; what runs the other way in it, and numbers, stand as they are read. Marks that open and close an embedding
are shown as escapes and steer nothing; brackets follow what is around them, as in the annex before version 6.3.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from itertools import groupby

from wyr_batch.draw.running import Cluster

_STRONG = ("L", "R", "AL")
_NUMBERS = ("EN", "AN")


def is_right_to_left(paragraph: Sequence[Cluster]) -> bool:
    """True if the first letter of a paragraph that has a direction runs from right to left (rules P2 and P3)."""
    kinds = (unicodedata.bidirectional(letter) for cluster in paragraph for letter in cluster.shown)
    return next((kind != "L" for kind in kinds if kind in _STRONG), False)


def levels_of(paragraph: Sequence[Cluster], to_left: bool) -> list[int]:
    """Return the level of each cluster: odd ones run from right to left, higher ones inside of lower ones.

    Args:
        to_left: the paragraph does, as `is_right_to_left` says.
    """
    base = "R" if to_left else "L"
    kinds = _resolved([_kind(cluster) for cluster in paragraph], base)
    level = int(to_left)
    return [{"L": level + level % 2, "R": 1, "EN": 2, "AN": 2}[kind] for kind in kinds]


def levels_in_line(line: Sequence[Cluster], levels: Sequence[int], to_left: bool) -> list[int]:
    """Return the levels of a line's clusters: spaces at its end run as the paragraph does (rule L1)."""
    found = list(levels)
    for place in range(len(line) - 1, -1, -1):
        if not (line[place].is_break or line[place].is_space):
            break
        found[place] = int(to_left)
    return found


def from_left_to_right(levels: Sequence[int]) -> list[int]:
    """Return the places of a line's clusters in the order in which they stand from left to right (rule L2).

    >>> from_left_to_right([1, 1, 2, 2, 1])
    [4, 2, 3, 1, 0]
    """
    order = list(range(len(levels)))
    for level in range(max(levels, default=0), 0, -1):
        turned: list[int] = []
        inside = [each >= level for each in levels]
        for is_inside, group in groupby(order, key=inside.__getitem__):
            turned += list(group)[:: -1 if is_inside else 1]
        order = turned
    return order


def _kind(cluster: Cluster) -> str:
    """Return the kind of a cluster: that of its first letter with a direction, else of its first."""
    kinds = [unicodedata.bidirectional(letter) for letter in cluster.shown]
    return next((kind for kind in kinds if kind in _STRONG), kinds[0] if kinds else "B") or "ON"


def _resolved(kinds: list[str], base: str) -> list[str]:
    """Return L, R, EN or AN for each kind (rules W2 to W7, N1 and N2)."""
    found = list(kinds)
    last = base
    for i, kind in enumerate(found):  # W2, W3
        if kind in _STRONG:
            last, found[i] = kind, "R" if kind == "AL" else kind
        elif kind == "EN" and last == "AL":
            found[i] = "AN"
    for i in range(1, len(found) - 1):  # W4
        before, kind, after = found[i - 1 : i + 2]
        if before == after and ((kind in ("ES", "CS") and before == "EN") or (kind == "CS" and before == "AN")):
            found[i] = before
    found = _filled(found, ("ET",), lambda before, after: "EN" if "EN" in (before, after) else "ON")  # W5
    last = base
    for i, kind in enumerate(found):  # W7
        if kind in ("L", "R"):
            last = kind
        elif kind == "EN" and last == "L":
            found[i] = "L"
    neutral = tuple({kind for kind in found if kind not in ("L", "R", *_NUMBERS)})

    def between(before: str | None, after: str | None) -> str:  # N1, N2
        sides = {"R" if kind in _NUMBERS else kind or base for kind in (before, after)}
        return sides.pop() if len(sides) == 1 else base

    return _filled(found, neutral, between)


def _filled(kinds: list[str], which: tuple[str, ...], fill: Callable[[str | None, str | None], str]) -> list[str]:
    """Return kinds with each stretch of some of them replaced by what `fill` says of the kinds before and after it."""
    found: list[str] = []
    groups = [(is_one, list(group)) for is_one, group in groupby(kinds, key=lambda kind: kind in which)]
    for i, (is_one, group) in enumerate(groups):
        before = groups[i - 1][1][-1] if i else None
        after = groups[i + 1][1][0] if i + 1 < len(groups) else None
        found += [fill(before, after)] * len(group) if is_one else group
    return found
