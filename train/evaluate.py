"""Does the masked read keep the call, and does what the mask hides say nothing? The paper's Table 1, rows 1 to 5.

Each read is its first window. Reads are explained for the classes the Explanandum calls on the plain read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from wyr_batch.errors import ModelError
from wyr_batch.models.explainer import Explainer
from wyr_batch.models.explanandum import Explanandum
from wyr_batch.ranks import Rank

from .data import LabelledReads, evaluation_batch, evaluation_batches
from .metrics import balanced_accuracy

MASKINGS = ("plain", "masks", "inverted_masks", "rounded_masks", "inverted_rounded_masks")


@torch.inference_mode()
def evaluate(
    explanandum: Explanandum,
    explainer: Explainer,
    ranks: Sequence[Rank],
    reads: LabelledReads,
    window_bp: int,
    progress: Callable[[int], None] = lambda n: None,
) -> dict[str, Any]:
    """Measure balanced accuracy per rank under each masking, and how much the masks keep.

    Args:
        reads: labelled reads; a null label is left out of its rank.
        progress: called with the number of reads done.
    Returns: a dict of plain numbers: `balanced_accuracy` {rank: {masking: value}}, `same_call` (share of the reads
        whose call equals the plain one), and the masks' statistics over tokens (`<cls>` not counted).
    """
    if explainer.config.num_classes != sum(explanandum.n_classes):
        raise ModelError(
            f"explainer: got num_classes {explainer.config.num_classes}, expected {sum(explanandum.n_classes)}, "
            "the classes of the explanandum. Name the two that were trained together."
        )
    first_class = torch.tensor([s.start for s in explanandum.slices])
    called = {name: np.empty((len(reads), len(ranks)), np.int64) for name in MASKINGS}
    token_masks: list[np.ndarray] = []
    done = 0
    for rows in evaluation_batches(reads, window_bp):
        batch = evaluation_batch(reads, rows, window_bp)
        valid = explanandum.valid(batch.input_ids)
        embedded = explanandum.embed(batch.input_ids)
        plain = explanandum.top_classes(explanandum.classify(embedded, valid))
        logits = explainer.class_logits(batch.input_ids, valid, plain + first_class)
        mask = torch.sigmoid(logits).amax(dim=1) * valid
        kept = (mask >= 0.5).float()
        maskings = (None, mask, (1 - mask) * valid, kept * valid, (1 - kept) * valid)
        for name, given in zip(MASKINGS, maskings, strict=True):
            top = plain if given is None else explanandum.top_classes(explanandum.classify(embedded, valid, given))
            called[name][rows] = top.numpy()
        token_masks.append(mask[:, 1:][valid[:, 1:]].numpy())
        done += len(rows)
        progress(done)
    values = np.concatenate(token_masks)
    return {
        "n_reads": len(reads),
        "window_bp": window_bp,
        "explained": "predicted",
        "n_labelled": {rank.name: int((reads.labels[:, r] >= 0).sum()) for r, rank in enumerate(ranks)},
        "balanced_accuracy": {
            rank.name: {name: round(balanced_accuracy(reads.labels[:, r], called[name][:, r]), 4) for name in MASKINGS}
            for r, rank in enumerate(ranks)
        },
        "same_call": {
            rank.name: {
                name: round(float((called[name][:, r] == called["plain"][:, r]).mean()), 4) for name in MASKINGS[1:]
            }
            for r, rank in enumerate(ranks)
        },
        "mask_mean": round(float(values.mean()), 4),
        "mask_share_above_half": round(float((values >= 0.5).mean()), 4),
    }
