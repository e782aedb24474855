"""The Explainer as the training loop holds it."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from wyr_batch.models.explainer import Explainer


class TrainedExplainer(nn.Module):
    """Holds the Explainer while it trains (Trainer takes a `config` attribute for one of transformers' own)."""

    def __init__(self, explainer: Explainer) -> None:
        super().__init__()
        self.explainer = explainer

    def forward(self, input_ids: Tensor, valid: Tensor) -> Tensor:
        """Return the normalised features [B, T, F] that the output layer takes."""
        explainer = self.explainer
        return explainer.normalised(explainer.features(input_ids, valid), valid)


def output_layer(trained: nn.Module) -> nn.Linear:
    """Return the output layer of a `TrainedExplainer`, which may be wrapped for several GPUs."""
    return cast(TrainedExplainer, getattr(trained, "module", trained)).explainer.head
