"""A warm start for the Explainer: learn where tokens speak for the explained class, before any mask is applied.

From random weights the four-term loss first opens every mask, since that makes all calls surer, and then takes long to
close it again. So the Explainer first learns to mark, for each rank, the share of tokens whose own final hidden
state speaks most for the explained class against its rivals. (With mean pooling the logits are the mean of exactly
these numbers.)
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wyr_batch.models.explainer import PlainPass
from wyr_batch.models.explanandum import Explanandum

from ..data.batches import evaluation_batch, evaluation_batches
from ..data.labelled import LabelledReads
from ..measure.explained import first_classes, own_tokens
from ..measure.faithfulness import best_tokens
from .trained_explainer import TrainedExplainer


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
                hidden, logits = model.read(embedded, input_ids)
            plain = PlainPass(input_ids, valid, hidden.float(), logits.float())
            targets = model.top_classes(plain.logits)
            scores = model.evidence(plain.hidden, plain.logits, targets)
            content = model.content(input_ids)
            best = [best_tokens(scores[:, r], content, self.share) for r in range(scores.shape[1])]
            wanted = torch.stack(best, dim=1)
        found = trained(model, plain, targets + first_classes(model).to(targets.device))
        each = F.binary_cross_entropy_with_logits(found, wanted, reduction="none")
        counted = own_tokens(model, input_ids).unsqueeze(1).expand_as(each)
        return {"evidence": each[counted].mean()}

    @torch.no_grad()
    def evaluate(self, trained: TrainedExplainer, reads: LabelledReads, window_bp: int) -> dict[str, float]:
        """Return the loss on reads."""
        total = 0.0
        for rows in evaluation_batches(reads, window_bp):
            batch = evaluation_batch(reads, rows, window_bp)
            total += float(self(trained, vars(batch))["evidence"]) * len(rows)
        return {"loss": total / len(reads)}
