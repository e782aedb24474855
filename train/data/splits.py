"""Which part a sequence is of: training, validation or test."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

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
