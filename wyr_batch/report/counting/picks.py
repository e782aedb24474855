"""Which reads are drawn, and why: chosen while all rows pass by, whatever their number, then read once more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from itertools import zip_longest

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wyr_batch.draw.kinds import NO, YES
from wyr_batch.masks.drawn import MASKED, PROB
from wyr_batch.masks.file import MaskFile
from wyr_batch.masks.rows import MaskRows
from wyr_batch.tokens.tokens import Int64s

RANDOM = "random"
# Of twenty reads; what a file has no such reads for, and the rest, is drawn at random.
_QUOTAS = {"sure": 3, "unsure": 3, "changed": 4, "longest": 2, "windowed": 3}
_OF = 20
# Chosen for each label by itself, where there are several: so that none goes without, up to this part of what is drawn.
_OF_LABELS, _PART_OF_LABELS = ("sure", "unsure"), 4
_SEED = 0x9E3779B97F4A7C15


class Best:
    """The k rows with the highest scores, the earlier row first among equals.

    Attributes:
        scores: float64 [at most k], best first; rows: int64, their numbers in the file.
    """

    def __init__(self, k: int) -> None:
        self.k = k
        self.scores, self.rows = np.zeros(0), np.zeros(0, np.int64)

    def add(self, scores: npt.NDArray[np.float64], rows: Int64s) -> None:
        """Take part with some rows; a score of nan does not."""
        good = ~np.isnan(scores)
        scores, rows = np.concatenate((self.scores, scores[good])), np.concatenate((self.rows, rows[good]))
        best = np.lexsort((rows, -scores))[: self.k]
        self.scores, self.rows = scores[best], rows[best]


class Picker:
    """Chooses rows to draw.

    Args:
        n: how many.
        ranks: names of the ranks; sure and unsure is a read by the last of them, or by each label of several.
        has_masked: per rank, whether the file has calls of the masked reads.
    """

    def __init__(self, n: int, ranks: Sequence[str], has_masked: Sequence[bool]) -> None:
        self.n, self.ranks = n, ranks
        self.compared = [rank for rank, masked in zip(ranks, has_masked, strict=True) if masked]
        self.best = {kind: Best(-(-quota * n // _OF)) for kind, quota in _QUOTAS.items()}
        self.best[RANDOM] = Best(n)
        self.quota_of_labels = max(self.best["sure"].k, min(len(ranks), n // _PART_OF_LABELS))
        self.best_of_labels = {kind: [Best(self.quota_of_labels) for _ in ranks] for kind in _OF_LABELS}

    def add(self, rows: MaskRows) -> None:
        """Let some rows take part; those without a mask do not."""
        drawable = pc.is_valid(rows.column("mask")).to_numpy(zero_copy_only=False)
        numbers = np.arange(rows.first, rows.first + len(rows))
        sure = rows.numbers(self.ranks[-1] + PROB).astype(np.float64)
        windowed = pc.equal(rows.column("status"), "windowed").to_numpy(zero_copy_only=False)
        chance = random_scores(numbers)
        scores = {
            "sure": sure,
            "unsure": -sure,
            "changed": self._changed(rows),
            "longest": rows.lengths.astype(np.float64),
            "windowed": np.where(windowed, chance, np.nan),
            RANDOM: chance,
        }
        for kind, values in scores.items():
            self.best[kind].add(np.where(drawable, values, np.nan), numbers)
        for i, rank in enumerate(self.ranks):
            calls = _texts(rows.column(rank))
            yes, no = (pc.fill_null(pc.equal(calls, w), False).to_numpy(zero_copy_only=False) for w in (YES, NO))
            if not (yes | no).any():
                continue
            prob = np.where(drawable, rows.numbers(rank + PROB).astype(np.float64), np.nan)
            self.best_of_labels["sure"][i].add(np.where(yes, prob, np.nan), numbers)
            self.best_of_labels["unsure"][i].add(np.where(yes | no, -prob, np.nan), numbers)

    def _changed(self, rows: MaskRows) -> npt.NDArray[np.float64]:
        """Return the highest plain probability among the calls that change under the mask, nan where none does."""
        found = np.full(len(rows), np.nan)
        for rank in self.compared:
            plain, masked = (_texts(rows.column(name)) for name in (rank, rank + MASKED))
            same = pc.fill_null(pc.equal(plain, masked), False)
            changed = pc.and_(pc.is_valid(plain), pc.invert(same)).to_numpy(zero_copy_only=False)
            found = np.fmax(found, np.where(changed, rows.numbers(rank + PROB).astype(np.float64), np.nan))
        return found

    def picked(self, lengths_differ: bool = True, many_labels: bool = False) -> dict[int, list[str]]:
        """Return the rows to draw with what each was picked for, in the order of the reasons.

        Args:
            lengths_differ: False if all reads are as long as each other, so that none is the longest.
            many_labels: the ranks are labels that are there or not. Each has texts of its own that are surest to have
                it, and unsure whether they have it; the reasons are then `sure: LABEL` and `unsure: LABEL`.
        """
        found: dict[int, list[str]] = {}
        for kind, best in self.best.items():
            if kind == "longest" and not lengths_differ:
                continue
            pairs = ((row, kind) for row in best.rows.tolist())
            for row, why in self._of_labels(kind) if many_labels and kind in _OF_LABELS else pairs:
                if row in found:
                    found[row] += [why] if kind != RANDOM else []
                elif len(found) < self.n:
                    found[row] = [why]
        return found

    def _of_labels(self, kind: str) -> Iterator[tuple[int, str]]:
        """Yield rows and reasons, the best of each label before the second of any, up to the quota of rows."""
        given: set[int] = set()
        for turn in zip_longest(*(best.rows.tolist() for best in self.best_of_labels[kind])):
            for rank, row in zip(self.ranks, turn, strict=True):
                if row is not None and (row in given or len(given) < self.quota_of_labels):
                    given.add(row)
                    yield row, f"{kind}: {rank}"


def random_scores(numbers: Int64s) -> npt.NDArray[np.float64]:
    """Return a score in [0, 1) of each row number, the same in every report (splitmix64)."""
    x = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(_SEED)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scores: npt.NDArray[np.float64] = (x >> np.uint64(11)).astype(np.float64) / 2.0**53
    return scores


def rows_at(masks: MaskFile, wanted: Set[int], columns: Sequence[str]) -> Iterator[tuple[int, MaskRows]]:
    """Yield the wanted rows, each with its number, by reading only their row groups. Raises: InputError."""
    for rows in masks.rows(columns, near=sorted(wanted)):
        for row in sorted(wanted & set(range(rows.first, rows.first + len(rows)))):
            yield row, rows.part(row - rows.first, row - rows.first + 1)


def _texts(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
