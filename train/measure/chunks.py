"""Chunks: a read cut where its rounded mask changes, each piece classified as a read of its own.

The answers are averaged over a read's relevant pieces (mask >= 0.5) and over its not-relevant ones. Source: Berman
et al., Table 1, last two rows: no blanked token is left in the input that could sway the classifier.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wyr_batch.models.explanandum import Explanandum
from wyr_batch.vocabulary import SIX_MERS, Vocabulary

from ..data.batches import batches_by_length

BATCH_TOKENS, BATCH_ROWS = 16_384, 2_048


def classify_chunks(
    explanandum: Explanandum, input_ids: Tensor, mask: Tensor, valid: Tensor, vocabulary: Vocabulary = SIX_MERS
) -> tuple[Tensor, Tensor]:
    """Classify every chunk of every read and average by kind.

    Args:
        input_ids: int64 [B, T]; mask: float [B, T]; valid: bool [B, T].
        vocabulary: its special tokens stand around each chunk as around a read.
    Returns: mean class probabilities float32 [B, 2, C], not-relevant chunks first (zeros where a read has none), and
        the number of chunks int64 [B, 2].
    """
    content = explanandum.content(input_ids) & valid
    rows, tokens = np.nonzero(content.numpy())  # row by row, in read order
    relevant = mask.numpy()[rows, tokens] >= 0.5
    ids = input_ids.numpy()[rows, tokens]
    n_reads, n_classes = len(input_ids), sum(explanandum.n_classes)
    total = torch.zeros(n_reads * 2, n_classes)
    counts = torch.zeros(n_reads * 2, dtype=torch.int64)
    if len(ids):
        borders = (np.diff(rows) != 0) | (np.diff(tokens) != 1) | (np.diff(relevant.astype(np.int8)) != 0)
        starts = np.flatnonzero(np.r_[True, borders])
        lengths = np.diff(np.r_[starts, len(ids)])
        place = torch.from_numpy(rows[starts] * 2 + relevant[starts])
        for some in batches_by_length(lengths + vocabulary.n_special, BATCH_TOKENS, BATCH_ROWS):
            chunks = [ids[starts[i] : starts[i] + lengths[i]] for i in some]
            batch = torch.from_numpy(vocabulary.padded(chunks).astype(np.int64))
            probs = explanandum.probabilities(explanandum(batch))
            total.index_add_(0, place[some], probs)
            counts.index_add_(0, place[some], torch.ones(len(some), dtype=torch.int64))
    means = total / counts.clamp(min=1).unsqueeze(1)
    return means.view(n_reads, 2, n_classes), counts.view(n_reads, 2)
