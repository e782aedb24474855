"""What the classifier says of a wholly masked read: nothing, it should be."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from wyr_batch.models.explanandum import Explanandum
from wyr_batch.texts.open import PROTEINS, READS, TEXTS

from ..data.labelled import LabelledReads

BLANK_LIMIT = 0.1  # for a classifier of 6-mers, which the heads' biases alone answer for
BLANK_LIMIT_OF_TOKENS = 0.5  # for others, which see special tokens and positions even so
BLANK_READS = 16
_NAMES = {READS: "read", PROTEINS: "protein", TEXTS: "text"}


def blank_divergence(explanandum: Explanandum, input_ids: Tensor) -> Tensor:
    """Return how far the answer to wholly masked reads is from uniform, worst read, float32 [R].

    As 1 - entropy / log(classes): 0 is uniform, 1 decided. The paper asks for "approximately uniform" (Methods).
    Special tokens are left, as by any mask.
    """
    nothing = torch.zeros(input_ids.shape)
    logits = explanandum(input_ids, explanandum.rank_masks(input_ids, nothing.unsqueeze(1)).squeeze(1))
    worst = []
    for classes in explanandum.slices:
        log_probs = torch.log_softmax(logits[:, classes].float(), dim=-1)
        entropy = -(log_probs.exp() * log_probs).sum(dim=-1)
        most = torch.log(torch.tensor(float(log_probs.shape[1])))
        worst.append((1 - entropy / most).amax() if log_probs.shape[1] > 1 else torch.zeros(()))
    return torch.stack(worst).clamp(min=0)


def blank_limit(reads: LabelledReads) -> float:
    """Return the divergence above which to warn."""
    return BLANK_LIMIT if reads.coding.is_kmers else BLANK_LIMIT_OF_TOKENS


def blank_warnings(divergences: Mapping[str, float], reads: LabelledReads) -> list[str]:
    """Return what to say of a classifier that makes up its mind about a blank read, rank by rank.

    Args:
        divergences: of each rank, by name.
    """
    limit, what = blank_limit(reads), _NAMES[reads.coding.kind]
    advice = "look at the biases of its heads." if reads.coding.is_kmers else "see docs/texts-training.md."
    return [
        f"explanandum, {rank}: got a divergence from uniform of {divergence:.2f} for a wholly masked {what}, expected "
        f"at most {limit}. A mask cannot hide what the classifier says anyway; {advice}"
        for rank, divergence in divergences.items()
        if divergence > limit
    ]
