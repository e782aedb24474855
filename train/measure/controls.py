"""Masks of the same read seen otherwise: its reverse complement, and its bases shuffled.

    reverse_complement   a read and its other strand are one molecule: do their masks agree, base by base?
    shuffled             the same bases in random order say nothing: is a mask still found that keeps the call?

Beside each stands what the classifier itself does, for an explanation can be no steadier than what it explains.
Source: Mechanistic Invariance Test, arXiv 2604.06549.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wyr_batch.models.explainer import Explainer
from wyr_batch.models.explanandum import Explanandum

from ..data.batches import evaluation_batches
from ..data.labelled import LabelledReads
from ..data.pieces import LabelledBatch, Pieces, cut_batch
from .explained import Explained, explain

Floats = npt.NDArray[np.float64]


@torch.no_grad()
def measure_controls(
    explanandum: Explanandum,
    explainer: Explainer,
    names: Sequence[str],
    reads: LabelledReads,
    window_bp: int,
    seed: int,
) -> dict[str, Any]:
    """Return both controls over some reads, the first window of each.

    `reverse_complement`: correlation of masks per base, and per rank the share of reads called alike on both strands.
    `shuffled`: the mean mask for the classes of the whole read, and per rank the share of reads that keep their call
    after the shuffle, plain and under that mask.
    """
    mixed = _shuffled(reads, window_bp, np.random.default_rng(seed))
    correlations: list[float] = []
    alike: list[Any] = []
    after: list[Any] = []
    masked: list[Any] = []
    means: list[Any] = []
    for rows in evaluation_batches(reads, window_bp):
        forward = _first_window(reads, rows, window_bp, reverse=False)
        found = explain(explanandum, explainer, forward)
        backward = replace(_first_window(reads, rows, window_bp, reverse=True), labels=found.plain)
        turned = explain(explanandum, explainer, backward, "labels")
        alike.append((turned.plain == found.plain).numpy())
        for row, length in enumerate(np.minimum(reads.lengths[rows], window_bp)):
            here, there = _per_base(found, forward, row, length), _per_base(turned, backward, row, length)[::-1]
            if here.std() > 0 and there.std() > 0:
                correlations.append(float(np.corrcoef(here, there)[0, 1]))
        noise = replace(_first_window(mixed, rows, window_bp, reverse=False), labels=found.plain)
        spoilt = explain(explanandum, explainer, noise, "labels")
        mask = spoilt.mask()
        kept = explanandum.top_classes(explanandum.classify(spoilt.embedded, spoilt.input_ids, mask))
        after.append((spoilt.plain == found.plain).numpy())
        masked.append((kept == found.plain).numpy())
        means.append((mask.sum(dim=1) / spoilt.valid.sum(dim=1)).numpy())

    def by_rank(parts: list[Any]) -> dict[str, float]:
        return dict(zip(names, np.concatenate(parts).mean(axis=0).round(4).tolist(), strict=True))

    return {
        "reverse_complement": {
            "n_reads": len(reads),
            "mask_correlation": round(float(np.mean(correlations)), 4) if correlations else float("nan"),
            "same_call": by_rank(alike),
        },
        "shuffled": {
            "n_reads": len(reads),
            "mask_mean": round(float(np.concatenate(means).mean()), 4),
            "same_call": by_rank(after),
            "same_call_masked": by_rank(masked),
        },
    }


def _first_window(reads: LabelledReads, rows: npt.NDArray[np.int64], window_bp: int, reverse: bool) -> LabelledBatch:
    lengths = np.minimum(reads.lengths[rows], window_bp)
    return cut_batch(reads, Pieces(rows, np.zeros_like(rows), lengths, np.full(len(rows), reverse)))


def _shuffled(reads: LabelledReads, window_bp: int, rng: np.random.Generator) -> LabelledReads:
    """Return the reads with the bases of their first window in random order."""
    bases = reads.bases.copy()
    for start, end in zip(reads.offsets[:-1], reads.offsets[1:], strict=True):
        rng.shuffle(bases[start : min(end, start + window_bp)])
    return replace(reads, bases=bases)


def _per_base(found: Explained, batch: LabelledBatch, row: int, length: int) -> Floats:
    """Return the mask of one read at each of its bases, float64 [length]."""
    starts: Tensor = batch.starts[row]
    tokens = starts >= 0
    index = torch.searchsorted(starts[tokens], torch.arange(length), right=True) - 1
    values: Floats = found.mask()[row][tokens][index.clamp(min=0)].double().numpy()
    return values
