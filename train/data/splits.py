"""Which part a sequence is of: training, validation or test."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from .lineages import Labels
from .request import SplitRule


def split_of(header: str) -> str:
    """Return the split that the hash rule gives a FASTA header line without its `>`.

    `int(sha1(header)[:8], 16) % 100`: 0-1 test, 2-11 validation, the rest training.

    >>> split_of("GeneID:921702")
    'test'
    """
    bucket = int(hashlib.sha1(header.encode()).hexdigest()[:8], 16) % 100
    if bucket < 2:
        return "test"
    return "validation" if bucket < 12 else "train"


def systematic(order: npt.NDArray[np.int64], share: float, start: float) -> npt.NDArray[np.bool_]:
    """Mark `share` of the places of `order`, evenly spaced: each run in it gets its share to within one.

    >>> systematic(np.arange(10), 0.2, 0.0).nonzero()[0].tolist()
    [4, 9]
    """
    steps = np.floor(np.arange(len(order) + 1) * share + start + 1e-9)
    marked = np.zeros(len(order), bool)
    marked[order] = np.diff(steps) > 0
    return marked


def stratified_splits(finest: npt.NDArray[np.int64], rule: SplitRule) -> npt.NDArray[np.int8]:
    """Return 0 train, 1 validation, 2 test for each sequence, every class in its share.

    Args:
        finest: int64 [n], class of the finest rank, -1 for null (a class of its own).
    """
    rng = np.random.default_rng(rule.seed)
    shuffled = rng.permutation(len(finest))
    order = shuffled[np.argsort(finest[shuffled], kind="stable")]
    test = systematic(order, rule.test_share, rng.random())
    rest = order[~test[order]]
    held = np.zeros(len(finest), np.int8)
    held[test] = 2
    validation = systematic(np.arange(len(rest)), rule.validation_share / (1 - rule.test_share), rng.random())
    held[rest[validation]] = 1
    return held


def stratified_by_labels(labels: Sequence[Labels], rule: SplitRule) -> npt.NDArray[np.int8]:
    """Return 0 train, 1 validation, 2 test for each text that may have several labels, every label in its share.

    Iterative stratification: of the texts without a part, all with the rarest label go first, each to the part that
    lacks most of it; of two parts alike, to the one that lacks most texts. Two things differ from the source. What a
    part lacks is a whole number, rounded on from label to label: where all labels are so rare that a part's share of
    each is less than a text, that part would get none. And of no, yes and null the commonest follows from the others.

    Args:
        labels: one of each rank for each text, None for null (a class of its own).

    Source: Sechidis, Tsoumakas & Vlahavas, On the Stratification of Multi-Label Data, ECML PKDD 2011, algorithm 1.
    """
    n = len(labels)
    rng = np.random.default_rng(rule.seed)
    rows = rng.permutation(n)
    every = np.ones(n, bool)  # as a label that all texts have: the last column
    has = np.column_stack([*_but_the_commonest(labels), every])
    n_each = has.sum(axis=0)
    test = _whole_shares(n_each, rule.test_share, rng.random())
    validation = _whole_shares(n_each - test, rule.validation_share / (1 - rule.test_share), rng.random())
    lacking = np.column_stack([n_each - test - validation, validation, test])
    held = np.full(n, -1, np.int8)
    while len(rows):
        n_left = has[rows].sum(axis=0)
        rarest = int(np.where(n_left > 0, n_left, n + 1).argmin())
        for row in rows[has[rows, rarest]].tolist():
            part = max(range(3), key=lambda each: (lacking[rarest, each], lacking[-1, each]))
            held[row] = part
            lacking[has[row], part] -= 1
        rows = rows[held[rows] < 0]
    return held


def _but_the_commonest(labels: Sequence[Labels]) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield for each class of each rank, but the commonest of a rank, which texts have it: bool [n]."""
    for rank in zip(*labels, strict=True):
        for name, _ in Counter(rank).most_common()[1:]:
            yield np.array([label == name for label in rank])


def _whole_shares(sizes: npt.NDArray[np.int64], share: float, start: float) -> npt.NDArray[np.int64]:
    """Return `share` of every size, and of any run of sizes, to within one.

    >>> _whole_shares(np.array([3, 3, 3, 3, 100]), 0.1, 0.0).tolist()
    [0, 0, 0, 1, 10]
    """
    ends = np.cumsum([0, *sizes])
    return np.diff(np.floor(ends * share + start + 1e-9)).astype(np.int64)
