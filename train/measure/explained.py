"""One batch of reads, called and explained: what every measure starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from wyr_batch.models.explainer import Explainer, PlainPass
from wyr_batch.models.explanandum import Explanandum

from ..data.pieces import LabelledBatch


@dataclass(frozen=True)
class Explained:
    """A batch with its masks; values at padding are 0, at special tokens 1.

    Attributes:
        model: the classifier.
        input_ids: int64 [B, T]; valid: bool [B, T]; embedded: float32 [B, T, D].
        content: bool [B, T], tokens that stand for a piece of the input: what is counted.
        plain: int64 [B, R], the classes called on the plain read.
        targets: int64 [B, R], the classes explained, index within the rank.
        logits: float32 [B, R, T], mask logits of the explained classes.
        words: int64 [B, T], which word each token is of; [B, 0]: there are no words.
    """

    model: Explanandum
    input_ids: Tensor
    valid: Tensor
    content: Tensor
    embedded: Tensor
    plain: Tensor
    targets: Tensor
    logits: Tensor
    words: Tensor

    def rank_masks(self, shift: float = 0.0) -> Tensor:
        """Return the masks of the explained classes, float32 [B, R, T]; `shift` is added to their logits."""
        return self.model.rank_masks(self.input_ids, torch.sigmoid(self.logits + shift))

    def mask(self, shift: float = 0.0) -> Tensor:
        """Return the target mask, that of all ranks together, float32 [B, T]."""
        return self.model.joined_mask(self.rank_masks(shift), self.targets)

    def classify(self, mask: Tensor) -> Tensor:
        """Return the logits of every class under a mask [B, T], float32 [B, C]."""
        return self.model.classify(self.embedded, self.input_ids, mask)

    @property
    def counted(self) -> Tensor:
        """Tokens with a mask value of their own, bool [B, T]."""
        return own_tokens(self.model, self.input_ids)

    def changed(self, change: Callable[[Tensor], Tensor]) -> Explained:
        """Return the batch with every tensor changed alike, as to some of its rows."""
        changed: dict[str, Any] = {n: change(value) for n, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **changed)

    def opened(self, mask: Tensor) -> Tensor:
        """Return the tokens in segments of a mask, bool [B, T]."""
        return open_tokens(mask, self.words) & self.content


def own_tokens(explanandum: Explanandum, input_ids: Tensor) -> Tensor:
    """Return bool [B, T], True at tokens with a mask value of their own: no padding, and not those of mask 1.

    `Explanandum.content` without more: the `<cls>` of a Nucleotide Transformer has a mask value as well.
    """
    valid, special = explanandum.valid(input_ids), explanandum.special(input_ids)
    return valid if special is None else valid & ~special


def open_tokens(mask: Tensor, words: Tensor) -> Tensor:
    """Return the tokens of a mask that are in segments, bool [B, T]: of words whose mean mask is 0.5 or more.

    Args:
        mask: float [B, T].
        words: int64 [B, T], -1 where a token is of none; [B, 0]: there are no words, and each token is for itself.
    """
    if not words.shape[1]:
        return mask >= 0.5
    place = words.clamp(min=0)
    counted = (words >= 0).to(mask.dtype)
    shape = mask.shape[0], int(place.max()) + 1 if place.numel() else 1
    sums = mask.new_zeros(shape).scatter_add_(1, place, mask * counted)
    counts = mask.new_zeros(shape).scatter_add_(1, place, counted)
    means = (sums / counts.clamp(min=1)).gather(1, place)
    return torch.where(words >= 0, means, mask) >= 0.5


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
    content = explanandum.content(batch.input_ids)
    return Explained(explanandum, batch.input_ids, valid, content, embedded, plain, targets, logits, batch.words)
