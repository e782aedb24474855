"""A warm start for the Explainer: learn where tokens speak for the explained class, before any mask is applied.

From random weights the four-term loss first opens every mask, since that makes all calls surer, and then takes long to
close it again. So the Explainer first learns to mark, for each rank, the share of tokens whose own final hidden
state speaks most for the explained class against its rivals. (With mean pooling the logits are the mean of exactly
these numbers.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wyr_batch.models.explanandum import Explanandum

from ..data.batches import evaluation_batch, evaluation_batches
from ..data.labelled import LabelledReads
from ..measure.explained import first_classes
from ..measure.faithfulness import best_tokens
from .trained_explainer import TrainedExplainer, output_layer


def evidence(explanandum: Explanandum, hidden: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    """Return how much each token's hidden state speaks for the explained class of each rank.

    Against a rival that is half the other classes by their probability and half all classes alike.

    Args:
        hidden: float [B, T, D]; logits: float [B, C]; targets: int64 [B, R], class within the rank.
    Returns: float [B, R, T].
    """
    scores = []
    for r, classes in enumerate(explanandum.slices):
        weight = cast(nn.Linear, explanandum.classifiers[r]).weight  # [K, D]
        probs = torch.softmax(logits[:, classes].float(), dim=-1).scatter(1, targets[:, r : r + 1], 0.0)
        probs = probs / probs.sum(dim=1, keepdim=True).clamp(min=1e-9)
        rival = (0.5 * probs + 0.5 / weight.shape[0]) @ weight  # [B, D]
        scores.append((hidden @ (weight[targets[:, r]] - rival).unsqueeze(-1)).squeeze(-1))
    return torch.stack(scores, dim=1)


class WarmStartLoss:
    """Binary cross-entropy of every token's mask against being among the best by evidence."""

    def __init__(self, explanandum: Explanandum, share: float, bf16: bool) -> None:
        self.explanandum = explanandum
        self.share = share
        self.bf16 = bf16

    def __call__(self, trained: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the one term; batch holds input_ids int64 [B, T]."""
        model, input_ids = self.explanandum, batch["input_ids"]
        valid = model.valid(input_ids)
        with torch.no_grad():
            embedded = model.embed(input_ids)
            with torch.autocast(embedded.device.type, torch.bfloat16, enabled=self.bf16):
                hidden = model.encoder.encode(embedded, valid)
            hidden = hidden.float()
            logits = model.logits(model.pool(hidden, valid, None))
            targets = model.top_classes(logits)
            scores = evidence(model, hidden, logits, targets)
            wanted = torch.stack([best_tokens(scores[:, r], valid, self.share) for r in range(scores.shape[1])], dim=1)
        head = output_layer(trained)
        classes = targets + first_classes(model).to(targets.device)
        features = trained(input_ids, valid)
        found = head.weight[classes] @ features.transpose(1, 2) + head.bias[classes].unsqueeze(-1)
        each = F.binary_cross_entropy_with_logits(found, wanted, reduction="none")
        return {"evidence": each[valid.unsqueeze(1).expand_as(each)].mean()}

    @torch.no_grad()
    def evaluate(self, trained: TrainedExplainer, reads: LabelledReads, window_bp: int) -> dict[str, float]:
        """Return the loss on reads."""
        total = 0.0
        for rows in evaluation_batches(reads, window_bp):
            batch = evaluation_batch(reads, rows, window_bp)
            total += float(self(trained, vars(batch))["evidence"]) * len(rows)
        return {"loss": total / len(reads)}
