"""Which reads are drawn, and why: chosen while all rows pass by, whatever their number, then read once more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wyr_batch.masks.drawn import MASKED, PROB
from wyr_batch.masks.file import MaskFile
from wyr_batch.masks.rows import MaskRows
from wyr_batch.tokens.tokens import Int64s

RANDOM = "random"
# Of twenty reads; what a file has no such reads for, and the rest, is drawn at random.
_QUOTAS = {"sure": 3, "unsure": 3, "changed": 4, "longest": 2, "windowed": 3}
_OF = 20
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
        ranks: names of the ranks; sure and unsure is a read by the last of them.
        has_masked: per rank, whether the file has calls of the masked reads.
    """

    def __init__(self, n: int, ranks: Sequence[str], has_masked: Sequence[bool]) -> None:
        self.n, self.ranks = n, ranks
        self.compared = [rank for rank, masked in zip(ranks, has_masked, strict=True) if masked]
        self.best = {kind: Best(-(-quota * n // _OF)) for kind, quota in _QUOTAS.items()}
        self.best[RANDOM] = Best(n)

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

    def _changed(self, rows: MaskRows) -> npt.NDArray[np.float64]:
        """Return the highest plain probability among the calls that change under the mask, nan where none does."""
        found = np.full(len(rows), np.nan)
        for rank in self.compared:
            plain, masked = (_texts(rows.column(name)) for name in (rank, rank + MASKED))
            same = pc.fill_null(pc.equal(plain, masked), False)
            changed = pc.and_(pc.is_valid(plain), pc.invert(same)).to_numpy(zero_copy_only=False)
            found = np.fmax(found, np.where(changed, rows.numbers(rank + PROB).astype(np.float64), np.nan))
        return found

    def picked(self, lengths_differ: bool = True) -> dict[int, list[str]]:
        """Return the rows to draw with what each was picked for, in the order of the reasons.

        Args:
            lengths_differ: False if all reads are as long as each other, so that none is the longest.
        """
        found: dict[int, list[str]] = {}
        for kind, best in self.best.items():
            if kind == "longest" and not lengths_differ:
                continue
            for row in best.rows.tolist():
                if row in found:
                    found[row] += [kind] if kind != RANDOM else []
                elif len(found) < self.n:
                    found[row] = [kind]
        return found


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
