"""ESM-2: classifiers of proteins, a token a residue."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from wyr_batch.models.families.normalised import Passing
from wyr_batch.models.families.text import TextExplanandum
from wyr_batch.models.families.tokenizer import TokenizerInfo

# Of the tokens in training, how many were hidden: those not hidden had to stand for all.
HIDDEN_IN_TRAINING = 0.15 * 0.8


class Esm2Explanandum(TextExplanandum):
    """ESM-2: rotary positions; the head is a tanh layer on `<cls>` and a linear one.

    Embeddings are scaled by what training hid, which transformers does only where it is given ids.
    """

    family = "esm"
    class_name = "EsmForSequenceClassification"
    input = "proteins"
    takes_types = False

    def __init__(self, model: Any, tokenizer: TokenizerInfo) -> None:
        super().__init__(model, tokenizer)
        self.token_dropout = bool(model.config.token_dropout)
        self.mask_token_id = model.config.mask_token_id
        self.base.contact_head = None  # of other uses
        self.base.embeddings = Passing(self.base.embeddings)

    def embed(self, input_ids: Tensor) -> Tensor:
        valid = self.valid(input_ids)
        embedded: Tensor = self.base.embeddings.word_embeddings(input_ids)
        embedded = embedded * valid.unsqueeze(-1).to(embedded.dtype)
        if not self.token_dropout:
            return embedded
        shown = (input_ids != self.mask_token_id) & valid
        share = shown.sum(dim=1, keepdim=True) / valid.sum(dim=1, keepdim=True)
        scale = (1 - HIDDEN_IN_TRAINING) / share.clamp(min=1e-9)  # 0 tokens shown are 0 whatever the scale
        scaled: Tensor = embedded * (shown * scale).unsqueeze(-1).to(embedded.dtype)
        return scaled

    def head(self, pooled: Tensor) -> Tensor:
        scores: Tensor = self.model.classifier(pooled.unsqueeze(1))
        return scores

    def head_matrices(self) -> list[Tensor]:
        return [self.model.classifier.dense.weight, self.model.classifier.out_proj.weight]
