"""Ranks: the classification heads of an Explanandum and their labels in class order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Rank:
    """One classification head: its name (superkingdom, phylum, ...) and its labels in class order."""

    name: str
    labels: tuple[str, ...]


def rank_slices(sizes: Sequence[int]) -> list[slice]:
    """Return where each rank's classes stand among all C classes, concatenated in rank order.

    >>> rank_slices([2, 3])
    [slice(0, 2, None), slice(2, 5, None)]
    """
    bounds = [0, *itertools.accumulate(sizes)]
    return [slice(start, end) for start, end in itertools.pairwise(bounds)]


def ranks_from_json(entries: Sequence[dict[str, Any]]) -> list[Rank]:
    """Return ranks from the `ranks` list of bundle.json or labels.json."""
    return [Rank(entry["name"], tuple(map(str, entry["labels"]))) for entry in entries]


def ranks_to_json(ranks: Sequence[Rank]) -> list[dict[str, Any]]:
    """Inverse of `ranks_from_json`."""
    return [{"name": rank.name, "labels": list(rank.labels)} for rank in ranks]
