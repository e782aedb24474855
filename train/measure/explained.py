"""One batch of reads, called and explained: what every measure starts from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wyr_batch.models.explainer import Explainer, PlainPass
from wyr_batch.models.explanandum import Explanandum

from ..data.pieces import LabelledBatch


@dataclass(frozen=True)
class Explained:
    """A batch with its masks; values at padding are 0.

    Attributes:
        input_ids: int64 [B, T]; valid: bool [B, T]; embedded: float32 [B, T, D].
        plain: int64 [B, R], the classes called on the plain read.
        targets: int64 [B, R], the classes explained, index within the rank.
        logits: float32 [B, R, T], mask logits of the explained classes.
    """

    input_ids: Tensor
    valid: Tensor
    embedded: Tensor
    plain: Tensor
    targets: Tensor
    logits: Tensor

    def rank_masks(self, shift: float = 0.0) -> Tensor:
        """Return the masks of the explained classes, float32 [B, R, T]; `shift` is added to their logits."""
        return torch.sigmoid(self.logits + shift) * self.valid.unsqueeze(1)

    def mask(self, shift: float = 0.0) -> Tensor:
        """Return the target mask, the maximum over ranks, float32 [B, T]."""
        return self.rank_masks(shift).amax(dim=1)


def first_classes(explanandum: Explanandum) -> Tensor:
    """Return where each rank's classes start among all classes, int64 [R]."""
    return torch.tensor([s.start for s in explanandum.slices])


def explain(
    explanandum: Explanandum, explainer: Explainer, batch: LabelledBatch, explained: str = "predicted"
) -> Explained:
    """Call and explain a batch.

    Args:
        explained: 'predicted' explains the classes called; 'labels' the true ones (the call where there is none).
    """
    valid = explanandum.valid(batch.input_ids)
    embedded = explanandum.embed(batch.input_ids)
    seen = PlainPass(batch.input_ids, valid, *explanandum.read(embedded, batch.input_ids))
    plain = explanandum.top_classes(seen.logits)
    targets = plain if explained == "predicted" else torch.where(batch.labels >= 0, batch.labels, plain)
    logits = explainer.class_logits(explanandum, seen, targets + first_classes(explanandum))
    return Explained(batch.input_ids, valid, embedded, plain, targets, logits)
