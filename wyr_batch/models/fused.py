"""Explanandum, Explainer and mask application as one function of token ids.

    ids -> Explanandum on plain embeddings -> predicted class per rank (or the classes asked for)
        -> Explainer, for those classes alone -> sigmoid -> mask per rank -> maximum over ranks
        -> Explanandum on embeddings * mask (and, mean-pooled, on hidden states * mask)

This is the reference in float32 torch; `wyr_batch.export` writes the same function as a graph.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from wyr_batch.models.explainer import Explainer, PlainPass
from wyr_batch.models.explanandum import Explanandum
from wyr_batch.models.numbers import full_precision


class FusedOutput(NamedTuple):
    """Values at padding are 0.

    Attributes:
        mask: float32 [B, T], maximum over ranks, `<cls>` included.
        rank_masks: float32 [B, R, T].
        explained_ids: int32 [B, R], class within the rank that the mask explains.
        probs: float32 [B, C], softmax per rank on the plain read.
        masked_probs: float32 [B, C], the same on the masked read; [B, 0] without masked calls.
    """

    mask: Tensor
    rank_masks: Tensor
    explained_ids: Tensor
    probs: Tensor
    masked_probs: Tensor


def exact_sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-x)), right in its tail to the last digits.

    Runtimes approximate Sigmoid to some 1e-7 absolutely, so a mask of 1e-7 can be twice what it should be; and the
    layer norm that follows turns that into a token of twice the size.
    """
    return torch.reciprocal(1 + torch.exp(-x))


class Fused(nn.Module):
    """The whole of what a read goes through, batched."""

    first_class: Tensor

    def __init__(self, explanandum: Explanandum, explainer: Explainer) -> None:
        super().__init__()
        self.explanandum = explanandum
        self.explainer = explainer
        starts = [s.start for s in explanandum.slices]
        self.register_buffer("first_class", torch.tensor(starts, dtype=torch.int64), persistent=False)

    def forward(self, input_ids: Tensor, explain_ids: Tensor, masked_calls: bool = True) -> FusedOutput:
        """Classify, explain, and classify again what the mask keeps.

        Args:
            input_ids: int32 or int64 [B, T], `<cls>` first, right-padded with 1.
            explain_ids: int32 or int64 [B, R], class within the rank to explain, -1 the predicted one.
            masked_calls: classify what the mask keeps.
        """
        model = self.explanandum
        valid = model.valid(input_ids)
        embedded = model.embed(input_ids)
        hidden, logits = model.read(embedded, input_ids)
        explained = torch.where(explain_ids < 0, model.top_classes(logits), explain_ids.long())
        plain = PlainPass(input_ids, valid, hidden, logits)
        mask_logits = self.explainer.class_logits(model, plain, explained + self.first_class)
        rank_masks = model.rank_masks(input_ids, exact_sigmoid(full_precision(mask_logits)))
        mask = model.joined_mask(rank_masks, explained)
        probs = model.probabilities(logits)
        masked_probs = probs[:, :0]
        if masked_calls:
            masked_probs = model.probabilities(model.classify(embedded, input_ids, mask))
        return FusedOutput(
            mask=mask,
            rank_masks=rank_masks,
            explained_ids=explained.to(torch.int32),
            probs=probs,
            masked_probs=masked_probs,
        )
