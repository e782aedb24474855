"""Do masks lie where people see the reason? Three measures against the spans that people marked.

    token_f1   tokens whose mask is 0.5 or more against tokens that overlap a rationale
    iou_f1     segments of the mask against rationales: a match shares half or more of the tokens of both together
    auprc      average precision of the mask's values as a score of being in a rationale

Each is computed text by text and averaged, with a 95 % bootstrap interval over texts; texts without a rationale in the
first window are left out. Beside each stands `random`: the same mask values in random order. A rationale says what a
person took for the reason, not what the classifier did: compare Explainers of one classifier, and read a low value of a
classifier that is right for other reasons as what it is.

Source: DeYoung et al., "ERASER", ACL 2020 (there the area under the precision-recall curve is by trapezoids).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..data.labelled import Int64s
from ..data.pieces import LabelledBatch
from .explained import Explained
from .faithfulness import permuted

LEAST_IOU = 0.5
N_RESAMPLES = 1000
MEASURES = ("token_f1", "iou_f1", "auprc")
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


def f1(n_right: int, n_found: int, n_wanted: int) -> float:
    """Return the harmonic mean of precision and recall, 0 where nothing is right."""
    return 2 * n_right / (n_found + n_wanted) if n_found + n_wanted else 0.0


def average_precision(scores: Floats, wanted: Bools) -> float:
    """Return the mean precision over the wanted tokens, taken by falling score; equal scores are taken together.

    Args:
        scores: float [T]; wanted: bool [T], at least one True.

    >>> average_precision(np.array([0.9, 0.5, 0.1]), np.array([True, False, True]))
    0.8333333333333333
    """
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.r_[np.diff(scores[order]) != 0, True])  # of each run of equal scores
    right = np.cumsum(wanted[order])[last]
    gained = np.diff(np.r_[0, right])
    return float((gained * right / (last + 1)).sum() / wanted.sum())


def runs(opened: Bools) -> list[tuple[int, int]]:
    """Return the runs of True, half-open.

    >>> runs(np.array([True, True, False, True]))
    [(0, 2), (3, 4)]
    """
    edges = np.flatnonzero(np.diff(np.pad(opened.astype(np.int8), 1)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def matched_f1(found: Sequence[tuple[int, int]], wanted: Sequence[tuple[int, int]]) -> float:
    """Return the F1 of spans [start, end) of tokens, a match being an intersection over union of `LEAST_IOU`."""
    if not found or not wanted:
        return 0.0
    (a, b), (c, d) = np.array(found).T, np.array(wanted).T
    shared = np.minimum(b[:, None], d) - np.maximum(a[:, None], c)
    union = np.maximum(b[:, None], d) - np.minimum(a[:, None], c)
    matches = shared >= LEAST_IOU * union
    precision, recall = float(matches.any(axis=1).mean()), float(matches.any(axis=0).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def interval(values: Floats, seed: int) -> dict[str, float]:
    """Return mean and 95 % bootstrap interval of one value a text."""
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(N_RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return {"mean": round(float(values.mean()), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


class RationaleAgreement:
    """The measures over many batches."""

    def __init__(self, rationales: Sequence[Int64s], seed: int) -> None:
        """
        Args:
            rationales: of every text int64 [K, 2], spans in code points.
            seed: of the random masks and the bootstrap.
        """
        self._rationales, self._seed = rationales, seed
        self._generator = torch.Generator().manual_seed(seed)
        self._values: dict[str, list[list[float]]] = {"explainer": [], "random": []}
        self._shares: list[float] = []
        self._n_without = 0

    def add(self, rows: Int64s, batch: LabelledBatch, found: Explained, mask: Tensor) -> None:
        """Add some texts, by their places among the rationales, with their mask float [B, T]."""
        chance = permuted(mask, found.content, self._generator)
        given = {"explainer": (mask, found.opened(mask)), "random": (chance, found.opened(chance))}
        for i, row in enumerate(rows):
            tokens = found.content[i].numpy()
            starts, ends = batch.starts[i].numpy()[tokens], batch.ends[i].numpy()[tokens]
            spans = [span for span in token_spans(starts, ends, self._rationales[row]) if span[1] > span[0]]
            if not spans:
                self._n_without += 1
                continue
            wanted = np.zeros(len(starts), bool)
            for start, end in spans:
                wanted[start:end] = True
            self._shares.append(float(wanted.mean()))
            for name, (values, opened) in given.items():
                scores = values[i].double().numpy()[tokens]
                kept = scores >= 0.5
                token_f1 = f1(int((kept & wanted).sum()), int(kept.sum()), int(wanted.sum()))
                iou_f1 = matched_f1(runs(opened[i].numpy()[tokens]), spans)
                self._values[name].append([token_f1, iou_f1, average_precision(scores, wanted)])

    def summary(self) -> dict[str, Any]:
        """Return {explanation: {measure: mean and interval}}, how many texts, and the share of tokens in rationales."""
        counts = {"n_texts": len(self._shares), "n_without": self._n_without}
        if not self._shares:
            return counts
        found: dict[str, Any] = {
            name: {m: interval(np.array(values)[:, k], self._seed) for k, m in enumerate(MEASURES)}
            for name, values in self._values.items()
        }
        return {**counts, "rationale_share": round(float(np.mean(self._shares)), 4), **found}


def token_spans(starts: Int64s, ends: Int64s, spans: Int64s) -> list[tuple[int, int]]:
    """Return which tokens each span overlaps, half-open, each run once; an empty run where it overlaps none.

    Args:
        starts, ends: int64 [T], of tokens that rise and do not overlap; spans: int64 [K, 2], in the same units.
    """
    first = np.searchsorted(ends, spans[:, 0], "right")
    last = np.searchsorted(starts, spans[:, 1], "left")
    return sorted({(int(a), int(max(a, b))) for a, b in zip(first, last, strict=True)})
