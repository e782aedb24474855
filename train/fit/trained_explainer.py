"""The Explainer as the training loop holds it."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from wyr_batch.models.explainer import Explainer, PlainPass
from wyr_batch.models.explanandum import Explanandum
from wyr_batch.models.lstm import LstmExplainer


class TrainedExplainer(nn.Module):
    """Holds the Explainer while it trains (Trainer takes a `config` attribute for one of transformers' own)."""

    def __init__(self, explainer: Explainer) -> None:
        super().__init__()
        self.explainer = explainer

    def forward(self, explanandum: Explanandum, plain: PlainPass, classes: Tensor | None) -> Tensor:
        """Return mask logits of the classes, float [B, N, T]; of every class, [B, C, T], where `classes` is None.

        Only an LSTM Explainer has all classes at once.
        """
        if classes is None:
            explainer = cast(LstmExplainer, self.explainer)
            return explainer.logits(plain.input_ids, plain.valid).transpose(1, 2)
        return self.explainer.class_logits(explanandum, plain, classes)
