"""Calls of each rank, plain and masked, counted; and the lineages that they make together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wyr_batch.masks.drawn import MASKED, MASKED_PROB, PROB
from wyr_batch.masks.rows import MaskRows
from wyr_batch.tokens.tokens import Int64s

PROB_BINS = 20
TOP_CALLS = 500
LEAST_SHARE = 0.001  # of the reads, of a branch that the tree of lineages shows
MOST_BRANCHES = 60
NO_CALL = -1


class RankTally:
    """Counts of one rank.

    Attributes:
        labels: every label met, with its code.
        kept, changed: int64 [PROB_BINS, PROB_BINS], called reads by plain and masked probability, whose masked read
            has the same call, and has not.
        counts, kept_counts: rows by the code of their call, and those of them that keep it.
        called, by_prob: int64 [PROB_BINS], called reads by plain probability, and those that keep the call.
        no_masked_call: called reads whose masked read has no call.
    """

    def __init__(self, name: str, has_masked: bool) -> None:
        self.name, self.has_masked = name, has_masked
        self.labels: dict[str, int] = {}
        self.counts: Counter[int] = Counter()
        self.kept_counts: Counter[int] = Counter()
        self.kept, self.changed = (np.zeros((PROB_BINS, PROB_BINS), np.int64) for _ in range(2))
        self.called, self.called_kept = (np.zeros(PROB_BINS, np.int64) for _ in range(2))
        self.n_called = self.n_kept = self.no_masked_call = 0

    def add(self, rows: MaskRows) -> Int64s:
        """Count the calls of some rows; returns the code of each plain call, NO_CALL where there is none."""
        codes = self.codes(rows.column(self.name))
        self.counts.update(_times(codes[codes >= 0]))
        called = codes >= 0
        self.n_called += int(called.sum())
        bins, known = _prob_bins(rows.numbers(self.name + PROB))
        self.called += np.bincount(bins[called & known], minlength=PROB_BINS)
        if self.has_masked:
            self._compare(rows, codes, bins, known)
        return codes

    def _compare(self, rows: MaskRows, codes: Int64s, bins: Int64s, known: npt.NDArray[np.bool_]) -> None:
        masked = self.codes(rows.column(self.name + MASKED))
        masked_bins, masked_known = _prob_bins(rows.numbers(self.name + MASKED_PROB))
        called, kept = codes >= 0, (codes >= 0) & (codes == masked)
        self.n_kept += int(kept.sum())
        self.kept_counts.update(_times(codes[kept]))
        self.no_masked_call += int((called & (masked < 0)).sum())
        self.called_kept += np.bincount(bins[kept & known], minlength=PROB_BINS)
        both = known & masked_known
        for grid, which in ((self.kept, kept), (self.changed, called & ~kept)):
            cells = bins[which & both] * PROB_BINS + masked_bins[which & both]
            grid += np.bincount(cells, minlength=PROB_BINS**2).reshape(PROB_BINS, PROB_BINS)

    def codes(self, column: pa.Array) -> Int64s:
        """Return the code of each label, int64 [n], NO_CALL for null; new labels get the next ones."""
        coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        labels = [self._code(label) for label in coded.dictionary.to_pylist()]
        places = coded.indices.fill_null(len(labels)).to_numpy(zero_copy_only=False)
        found: Int64s = np.array([*labels, NO_CALL], np.int64)[places]
        return found

    def _code(self, label: object) -> int:
        return NO_CALL if label is None else self.labels.setdefault(str(label), len(self.labels))

    def as_json(self) -> dict[str, Any]:
        """Return the counts; what needs masked calls is null in a file without them."""
        names = {code: label for label, code in self.labels.items()}
        counted = ((names[code], n, self.kept_counts[code]) for code, n in self.counts.items())
        calls = sorted(counted, key=lambda call: (-call[1], call[0]))
        top = calls[:TOP_CALLS]
        masked = {
            "kept": self.n_kept,
            "no_masked_call": self.no_masked_call,
            "kept_by_prob": self.called_kept.tolist(),
            "kept_grid": self.kept.tolist(),
            "changed_grid": self.changed.tolist(),
        }
        return {
            "name": self.name,
            "called": self.n_called,
            "labels": len(calls),
            "calls": [
                {"label": label, "reads": n, "kept": kept if self.has_masked else None} for label, n, kept in top
            ],
            "other_reads": sum(n for _, n, _ in calls[len(top) :]),
            "prob_bins": PROB_BINS,
            "called_by_prob": self.called.tolist(),
            **(masked if self.has_masked else dict.fromkeys(masked)),
        }


class Lineages:
    """How often each combination of calls over all ranks occurs, among explained reads."""

    def __init__(self, ranks: Sequence[RankTally]) -> None:
        self.ranks = ranks
        self.counts: Counter[tuple[int, ...]] = Counter()

    def add(self, codes: Sequence[Int64s], explained: npt.NDArray[np.bool_]) -> None:
        """Count some rows; `codes`: int64 [n] of each rank."""
        columns = np.stack(codes)[:, explained]
        key = np.zeros(columns.shape[1], np.int64)
        for column in columns:  # numbered anew at each rank, so that keys stay small
            _, key = np.unique(key * (int(column.max(initial=0)) + 2) + column + 1, return_inverse=True)
        _, first, n = np.unique(key, return_index=True, return_counts=True)
        for at, count in zip(first.tolist(), n.tolist(), strict=True):
            self.counts[tuple(columns[:, at].tolist())] += count

    def as_json(self) -> dict[str, Any]:
        """Return the tree of calls, the first rank at the top."""
        names = [{code: label for label, code in rank.labels.items()} for rank in self.ranks]
        named = {
            tuple(names[r].get(code) for r, code in enumerate(codes)): count for codes, count in self.counts.items()
        }
        total = sum(named.values())
        return {"reads": total, **_branches(named, 0, max(1.0, LEAST_SHARE * total))}


def _branches(counts: dict[tuple[str | None, ...], int], rank: int, least: float) -> dict[str, Any]:
    """Return children of a node, most reads first, and what is left out as few; a label of null is no call."""
    groups: dict[str | None, dict[tuple[str | None, ...], int]] = {}
    for lineage, n in counts.items():
        if rank < len(lineage):
            groups.setdefault(lineage[rank], {})[lineage] = n
    sums = [(label, sum(group.values())) for label, group in groups.items()]
    sums.sort(key=lambda child: (-child[1], child[0] is None, child[0] or ""))
    shown = [(label, n) for label, n in sums[:MOST_BRANCHES] if n >= least]
    left = sums[len(shown) :]
    return {
        "children": [{"label": label, "reads": n, **_branches(groups[label], rank + 1, least)} for label, n in shown],
        "other_labels": len(left),
        "other_reads": sum(n for _, n in left),
    }


def _times(codes: Int64s) -> dict[int, int]:
    """Return how often each code occurs."""
    found, n = np.unique(codes, return_counts=True)
    return dict(zip(found.tolist(), n.tolist(), strict=True))


def _prob_bins(probs: npt.NDArray[Any]) -> tuple[Int64s, npt.NDArray[np.bool_]]:
    """Return the bin of each probability, int64 [n], and where there is one."""
    known = np.isfinite(probs)
    bins = np.clip((np.where(known, probs, 0) * PROB_BINS).astype(np.int64), 0, PROB_BINS - 1)
    return bins, known
