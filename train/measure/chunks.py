"""Chunks: a read cut where its rounded mask changes, each piece classified as a read of its own.

The answers are averaged over a read's relevant pieces (mask >= 0.5) and over its not-relevant ones. Source: Berman
et al., Table 1, last two rows: no blanked token is left in the input that could sway the classifier.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wyr_batch.models.explanandum import Explanandum

from ..data.batches import batches_by_length

BATCH_TOKENS, BATCH_ROWS = 16_384, 2_048


def classify_chunks(explanandum: Explanandum, input_ids: Tensor, mask: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Classify every chunk of every read and average by kind.

    Args:
        input_ids: int64 [B, T], `<cls>` first; mask: float [B, T]; valid: bool [B, T].
    Returns: mean class probabilities float32 [B, 2, C], not-relevant chunks first (zeros where a read has none), and
        the number of chunks int64 [B, 2].
    """
    rows, tokens = np.nonzero(valid.numpy()[:, 1:])  # row by row, in read order
    relevant = mask.numpy()[:, 1:][rows, tokens] >= 0.5
    ids = input_ids.numpy()[:, 1:][rows, tokens]
    n_reads, n_classes = len(input_ids), sum(explanandum.n_classes)
    total = torch.zeros(n_reads * 2, n_classes)
    counts = torch.zeros(n_reads * 2, dtype=torch.int64)
    if len(ids):
        starts = np.flatnonzero(np.r_[True, (np.diff(rows) != 0) | (np.diff(relevant.astype(np.int8)) != 0)])
        lengths = np.diff(np.r_[starts, len(ids)])
        cls_id = int(input_ids[0, 0])
        place = torch.from_numpy(rows[starts] * 2 + relevant[starts])
        for some in batches_by_length(lengths + 1, BATCH_TOKENS, BATCH_ROWS):
            batch = np.full((len(some), lengths[some].max() + 1), explanandum.pad_id, np.int64)
            batch[:, 0] = cls_id
            row = np.repeat(np.arange(len(some)), lengths[some])
            within = np.arange(len(row)) - np.repeat(np.cumsum(lengths[some]) - lengths[some], lengths[some])
            batch[row, within + 1] = ids[np.repeat(starts[some], lengths[some]) + within]
            probs = explanandum.probabilities(explanandum(torch.from_numpy(batch)))
            total.index_add_(0, place[some], probs)
            counts.index_add_(0, place[some], torch.ones(len(some), dtype=torch.int64))
    means = total / counts.clamp(min=1).unsqueeze(1)
    return means.view(n_reads, 2, n_classes), counts.view(n_reads, 2)
