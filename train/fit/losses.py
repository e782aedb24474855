"""The four terms of the Explainer's loss, padding excluded from each.

    L = classification(masked read) + lambda_e entropy(complement) + lambda_a area(m, n, S) + lambda_tv variation(m, n)

m is the target mask (maximum over the explained classes, one per rank), n the maximum over all other classes,
S the masks of the explained classes. Sources: Berman et al., section Methods; Stalder et al., NeurIPS 2022.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

ENTROPY_SCALES = ("classes", "log")


def classification_loss(
    logits: Tensor, targets: Tensor, slices: Sequence[slice], weights: Sequence[float] | None = None
) -> Tensor:
    """Return the sum over ranks of the cross-entropy of the masked read against the explained classes.

    Args:
        logits: float [B, C]; targets: int64 [B, R], class within the rank, -1 where there is none.
        weights: of each rank; left out: the paper's, all 1.
    """
    weights = weights or [1.0] * len(slices)
    terms = [
        weights[r] * F.cross_entropy(logits[:, classes].float(), targets[:, r], ignore_index=-1)
        for r, classes in enumerate(slices)
        if (targets[:, r] >= 0).any()
    ]
    return torch.stack(terms).sum() if terms else logits.new_zeros(())


def entropy_loss(
    logits: Tensor, slices: Sequence[slice], scale: str = "classes", weights: Sequence[float] | None = None
) -> Tensor:
    """Return the negative entropy of what the complement of the mask still says, summed over ranks.

    Args:
        logits: float [B, C] of the read under 1 - m.
        scale: 'classes' divides each rank by its number of classes (the paper's formula); 'log' by the logarithm of
            it, so that every rank counts from -1 (uniform) to 0 (decided). The paper's is tiny for large ranks.
        weights: of each rank; left out: the paper's, all 1.
    """
    total = logits.new_zeros(())
    for classes, weight in zip(slices, weights or [1.0] * len(slices), strict=True):
        log_probs = F.log_softmax(logits[:, classes].float(), dim=-1)
        n_classes = log_probs.shape[1]
        if n_classes < 2:
            continue
        divisor = n_classes if scale == "classes" else torch.log(torch.tensor(float(n_classes)))
        total = total + weight * (log_probs.exp() * log_probs).sum(dim=-1).mean() / divisor
    return total


def call_loss(
    logits: Tensor, targets: Tensor, slices: Sequence[slice], weights: Sequence[float] | None = None
) -> Tensor:
    """Return how much the complement still speaks for the explained classes, summed over ranks.

    Per rank `max(0, log p + log K) / log K` for the class's probability p among K: 0 where it is no likelier than in
    a uniform answer, 1 where it is certain. Unlike the entropy it does not mind another class being called.

    Args:
        logits: float [B, C] of the read under 1 - m; targets: int64 [B, R], -1 where there is none.
        weights: of each rank; left out: all 1.
    """
    total = logits.new_zeros(())
    for r, (classes, weight) in enumerate(zip(slices, weights or [1.0] * len(slices), strict=True)):
        known = targets[:, r] >= 0
        n_classes = classes.stop - classes.start
        if n_classes < 2 or not known.any():
            continue
        log_probs = F.log_softmax(logits[known, classes].float(), dim=-1).gather(1, targets[known, r : r + 1])
        most = torch.log(torch.tensor(float(n_classes)))
        total = total + weight * torch.relu(log_probs + most).mean() / most
    return total


def mean_area(mask: Tensor, valid: Tensor) -> Tensor:
    """Return the mean mask value over each read's tokens, [B]; mask float [B, T], valid bool [B, T]."""
    return (mask * valid).sum(dim=1) / valid.sum(dim=1)


def bounds_loss(masks: Tensor, valid: Tensor, least: float, most: float) -> Tensor:
    """Return how far each mask's area lies outside its bounds, [B, R].

    The sorted mask is compared with `round(least * Z)` ones below and `round(most * Z)` ones above, Z being the
    number of tokens of the read.

    Args:
        masks: float [B, R, T] of the explained classes.
        valid: bool [B, T].
        least, most: the paper's a and b, 0 < a < b < 1.
    """
    n_tokens = valid.sum(dim=1)[:, None, None]
    # Padding sorts behind every token.
    ordered = masks.masked_fill(~valid[:, None, :], -1.0).sort(dim=-1, descending=True).values
    place = torch.arange(masks.shape[-1], device=masks.device)
    inside = place < n_tokens
    lower = (place < torch.round(least * n_tokens)).to(masks.dtype)
    upper = (place < torch.round(most * n_tokens)).to(masks.dtype)
    outside = torch.relu(lower - ordered) + torch.relu(ordered - upper)
    return (outside * inside).sum(dim=-1) / n_tokens[:, :, 0]


def area_loss(
    target: Tensor, other: Tensor, masks: Tensor, has_class: Tensor, valid: Tensor, a: float, b: float
) -> Tensor:
    """Return mean areas of both masks plus the mean bounds penalty of the explained classes' masks.

    Args:
        target, other: float [B, T], the masks m and n.
        masks: float [B, R, T], S; has_class: bool [B, R], the rank has an explained class.
    """
    outside = (bounds_loss(masks, valid, a, b) * has_class).sum(dim=1) / has_class.sum(dim=1).clamp(min=1)
    return (mean_area(target, valid) + mean_area(other, valid) + outside).mean()


def variation_loss(target: Tensor, other: Tensor, valid: Tensor) -> Tensor:
    """Return the mean absolute difference between neighbouring tokens, of both masks."""
    both = (valid[:, 1:] & valid[:, :-1]).to(target.dtype)
    steps = (target.diff(dim=1).abs() + other.diff(dim=1).abs()) * both
    return (steps.sum(dim=1) / valid.sum(dim=1)).mean()


def target_area_loss(mask: Tensor, valid: Tensor, target: float) -> Tensor:
    """Return the squared distance of the batch's mean mask from the area that was asked for; 0 of no reads.

    Of the mean over reads, not of each: a read may need more than another.

    Args:
        mask: float [B, T]; valid: bool [B, T].
    """
    if not len(mask):
        return mask.new_zeros(())
    return (mean_area(mask, valid).mean() - target) ** 2


def outside_loss(masks: Tensor, inside: Tensor, targets: Tensor, other_labels: Tensor, valid: Tensor) -> Tensor:
    """Return how much of a chimera's foreign half the masks open, summed over ranks.

    A rank counts where both halves have a label, and another one.

    Args:
        masks: float [B, R, T] of the explained classes.
        inside: bool [B, T], True at tokens of the half whose classes are explained.
        targets, other_labels: int64 [B, R], classes of that half and of the other; -1 unknown, or no chimera.
        valid: bool [B, T].
    """
    foreign = (~inside & valid).to(masks.dtype)
    differ = (targets >= 0) & (other_labels >= 0) & (targets != other_labels)  # [B, R]
    open_share = (masks * foreign.unsqueeze(1)).sum(dim=2) / foreign.sum(dim=1).clamp(min=1).unsqueeze(1)
    return (open_share * differ).sum(dim=0).div(differ.sum(dim=0).clamp(min=1)).sum()
