"""Linear heads on a pooled vector, one a rank: what the published classifiers of reads have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from wyr_batch.models.explanandum import Explanandum


class LinearHeads(Explanandum):
    """Base of families whose logits are linear in the pooled vector."""

    classifiers: nn.ModuleList

    def add_heads(self, hidden_size: int, n_classes: Sequence[int]) -> None:
        """Make the heads, after the base model, in whose order tensors are drawn and stored."""
        self.hidden_size = hidden_size
        self.classifiers = nn.ModuleList(nn.Linear(hidden_size, n) for n in n_classes)

    def config_json(self) -> str:
        """Return the text of base_model/config.json."""
        raise NotImplementedError

    def logits(self, pooled: Tensor) -> Tensor:
        return torch.cat([head(pooled) for head in self.classifiers], dim=-1)

    def head_rows(self, rank: int) -> Tensor:
        return cast(nn.Linear, self.classifiers[rank]).weight
