"""ModernBERT and DeBERTa v2 and v3: nothing is added to word embeddings before they are normalised.

A layer norm undoes any scaling, so a mask before it would do nothing short of exactly 0; here the mask scales what the
norm has made. In a DeBERTa that adds positions or token types first, the mask comes before those, as in BERT.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wyr_batch.models.encoder import PADDING_SCORE
from wyr_batch.models.explanandum import NORMALISED
from wyr_batch.models.families.text import TextExplanandum
from wyr_batch.models.families.tokenizer import TokenizerInfo


class Passing(nn.Module):
    """Stands for a model's embeddings and hands on what `embed` has made; parts and tensors keep their names."""

    def __init__(self, whole: nn.Module) -> None:
        super().__init__()
        for name, part in whole.named_children():
            self.add_module(name, part)

    def forward(self, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None, **_: Any) -> Tensor | None:
        return inputs_embeds


class ModernBertExplanandum(TextExplanandum):
    """ModernBERT: rotary positions, some layers see a window of neighbours only; pools by `[CLS]` or by the mean."""

    family = "modernbert"
    class_name = "ModernBertForSequenceClassification"
    mask_site = NORMALISED

    def __init__(self, model: Any, tokenizer: TokenizerInfo) -> None:
        super().__init__(model, tokenizer)
        self.base.embeddings = Passing(self.base.embeddings)

    @staticmethod
    def pooling_of(config: Any) -> str:
        return str(config.classifier_pooling)

    def embed(self, input_ids: Tensor) -> Tensor:
        parts = self.base.embeddings
        embedded: Tensor = parts.norm(parts.tok_embeddings(input_ids))
        return embedded * self.valid(input_ids).unsqueeze(-1).to(embedded.dtype)

    def encode(self, embedded: Tensor, input_ids: Tensor) -> Tensor:
        everywhere = self.padding_scores(input_ids, embedded.dtype)
        places = self.positions(input_ids)
        distance = (places.transpose(0, 1) - places).abs()  # [T, T]
        near = torch.where(distance <= self.model.config.sliding_window, 0.0, PADDING_SCORE).to(embedded.dtype)
        hidden: Tensor = self.base(
            inputs_embeds=embedded,
            attention_mask={"full_attention": everywhere, "sliding_attention": everywhere + near},
            position_ids=places,
        )[0]
        return hidden

    def layers(self) -> Sequence[nn.Module]:
        return ()  # some see a window of neighbours only

    def head(self, pooled: Tensor) -> Tensor:
        scores: Tensor = self.model.classifier(self.model.head(pooled))
        return scores

    def head_matrices(self) -> list[Tensor]:
        head = self.model.head
        return [head.dense.weight, head.norm.weight.diag(), self.model.classifier.weight]


class DebertaExplanandum(TextExplanandum):
    """DeBERTa v2 and v3: attention looks at distances, whose buckets are a table made once.

    The buckets are logarithms rounded up, which no two runtimes round alike.
    """

    family = "deberta-v2"
    class_name = "DebertaV2ForSequenceClassification"
    buckets: Tensor  # int64 [2 * max_tokens - 1], of the distances 1 - max_tokens to max_tokens - 1

    def __init__(self, model: Any, tokenizer: TokenizerInfo) -> None:
        super().__init__(model, tokenizer)
        parts, encoder = self.base.embeddings, self.base.encoder
        self.is_first_normalised = not (parts.position_biased_input or parts.token_type_embeddings is not None)
        if self.is_first_normalised:
            self.mask_site = NORMALISED
        self.register_buffer("buckets", _buckets(encoder, self.max_tokens), persistent=False)
        if encoder.conv is not None:
            encoder.conv.register_forward_pre_hook(_whole_mask)

    def embed(self, input_ids: Tensor) -> Tensor:
        embedded: Tensor = self.base.embeddings.word_embeddings(input_ids)
        return self._normalised(embedded, input_ids) if self.is_first_normalised else self._kept(embedded, input_ids)

    def _kept(self, x: Tensor, input_ids: Tensor) -> Tensor:
        return x * self.valid(input_ids).unsqueeze(-1).to(x.dtype)

    def _normalised(self, embedded: Tensor, input_ids: Tensor) -> Tensor:
        parts = self.base.embeddings
        if parts.embed_proj is not None:
            embedded = parts.embed_proj(embedded)
        return self._kept(parts.LayerNorm(embedded), input_ids)

    def encode(self, embedded: Tensor, input_ids: Tensor) -> Tensor:
        places = self.positions(input_ids)
        if not self.is_first_normalised:
            parts = self.base.embeddings
            if parts.position_biased_input:
                embedded = embedded + parts.position_embeddings(places)
            if parts.token_type_embeddings is not None:
                types = self.token_types(input_ids)
                embedded = embedded + parts.token_type_embeddings(types)
            embedded = self._normalised(embedded, input_ids)
        relative = None
        if self.base.encoder.relative_attention:
            relative = self.buckets[places.transpose(0, 1) - places + self.max_tokens - 1].unsqueeze(0)  # [1, T, T]
        hidden: Tensor = self.base.encoder(
            embedded, self.valid(input_ids).unsqueeze(1), output_hidden_states=False, relative_pos=relative
        ).last_hidden_state
        return hidden

    def layers(self) -> Sequence[nn.Module]:
        return ()  # each gives its attention as well

    def head(self, pooled: Tensor) -> Tensor:
        scores: Tensor = self.model.classifier(self.model.pooler(pooled.unsqueeze(1)))
        return scores

    def head_matrices(self) -> list[Tensor]:
        return [self.model.pooler.dense.weight, self.model.classifier.weight]

    def write_out_attention(self, on: bool = True) -> None:
        """transformers writes it out always."""


def _buckets(encoder: Any, max_tokens: int) -> Tensor:
    """Return the bucket of each distance between two tokens, as transformers counts them."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    distances = torch.arange(1 - max_tokens, max_tokens)
    if encoder.relative_attention and encoder.position_buckets > 0 and encoder.max_relative_positions > 0:
        buckets: Tensor = make_log_bucket_position(distances, encoder.position_buckets, encoder.max_relative_positions)
        return buckets.long()
    return distances


def _whole_mask(_: nn.Module, args: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Hand the convolution its mask of padding as the whole number that it computes with."""
    hidden, residual, mask = args
    return hidden, residual, mask.to(torch.int64)
