"""Classifiers of transformers with one vector a text: BERT, RoBERTa, XLM-RoBERTa, DistilBERT, ELECTRA.

transformers' own modules compute; they are handed embeddings, positions, token types and a float mask of padding, so
that nothing depends on which token stands where but the embeddings, which the mask scales. What a family adds to the
word embeddings (positions, types) it adds after the mask, so a token of mask 0 is still a token at a place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from wyr_batch.models.encoder import PADDING_SCORE
from wyr_batch.models.families.tokenised import Tokenised
from wyr_batch.models.families.tokenizer import TokenizerInfo
from wyr_batch.models.precision import halve_linears

MULTI_LABEL = "multi_label_classification"


class TextExplanandum(Tokenised):
    """A `...ForSequenceClassification` of transformers.

    One of several labels is one rank; a classifier of several labels at once has a rank for each, of the classes no
    and yes.

    Attributes:
        model: transformers' model, in evaluation mode.
        class_name: of that model, in the package transformers.
        takes_types: it tells the tokens of a pair's texts apart by a type.
    """

    input = "text"
    class_name: ClassVar[str]
    takes_types: ClassVar[bool] = True
    model: Any

    def __init__(self, model: Any, tokenizer: TokenizerInfo) -> None:
        """
        Args:
            model: of the class `class_name`.
            tokenizer: what makes its tokens.
        """
        config = model.config
        multi_label = config.problem_type == MULTI_LABEL
        super().__init__((2,) * config.num_labels if multi_label else (config.num_labels,), self.pooling_of(config))
        self.multi_label = multi_label
        self.model = model
        self.hidden_size, self.vocab_size = config.hidden_size, config.vocab_size
        self.max_tokens = self.longest(config)
        self.use_tokenizer(tokenizer)

    @staticmethod
    def pooling_of(config: Any) -> str:
        """Return how the family pools."""
        return "cls"

    @staticmethod
    def longest(config: Any) -> int:
        """Return the tokens of the longest row that there are positions for."""
        return int(config.max_position_embeddings)

    @property
    def base(self) -> Any:
        """The encoder without the head."""
        return self.model.base_model

    # Embeddings to hidden states.

    def embed(self, input_ids: Tensor) -> Tensor:
        embedded: Tensor = self.base.get_input_embeddings()(input_ids)
        return embedded * self.valid(input_ids).unsqueeze(-1).to(embedded.dtype)

    def encode(self, embedded: Tensor, input_ids: Tensor) -> Tensor:
        types = {"token_type_ids": self.token_types(input_ids)} if self.takes_types else {}
        hidden: Tensor = self.base(
            inputs_embeds=embedded,
            attention_mask=self.padding_scores(input_ids, embedded.dtype),
            position_ids=self.positions(input_ids),
            **types,
        )[0]
        return hidden

    def padding_scores(self, input_ids: Tensor, dtype: torch.dtype) -> Tensor:
        """Return what is added to attention scores, 0 at tokens, [B, 1, 1, T]."""
        return torch.where(self.valid(input_ids), 0.0, PADDING_SCORE).to(dtype)[:, None, None, :]

    def layers(self) -> Sequence[nn.Module]:
        return list(self.base.encoder.layer)

    # Pooled vectors to logits.

    def head(self, pooled: Tensor) -> Tensor:
        """Return what the model gives for pooled vectors [B, D], one number a label, [B, L]."""
        raise NotImplementedError

    def head_matrices(self) -> list[Tensor]:
        """Return the weights of the head, first to last; their product has one row a label."""
        raise NotImplementedError

    def logits(self, pooled: Tensor) -> Tensor:
        scores = self.head(pooled)
        if not self.multi_label:
            return scores
        return torch.stack((torch.zeros_like(scores), scores), dim=-1).flatten(1)

    def head_rows(self, rank: int) -> Tensor:
        rows, *before = reversed(self.head_matrices())
        for matrix in before:
            rows = rows @ matrix
        if not self.multi_label:
            return rows
        return torch.stack((torch.zeros_like(rows[rank]), rows[rank]))

    # Forms to compute in.

    def halve(self, dtype: torch.dtype) -> None:
        halve_linears(self.base, dtype, leave=("pooler", "contact_head"))

    def write_out_attention(self, on: bool = True) -> None:
        self.model.set_attn_implementation("eager" if on else "sdpa")


class BertExplanandum(TextExplanandum):
    """BERT: the head is a tanh layer on `[CLS]` and a linear one."""

    family = "bert"
    class_name = "BertForSequenceClassification"

    def head(self, pooled: Tensor) -> Tensor:
        scores: Tensor = self.model.classifier(torch.tanh(self.base.pooler.dense(pooled)))
        return scores

    def head_matrices(self) -> list[Tensor]:
        return [self.base.pooler.dense.weight, self.model.classifier.weight]


class _DenseHead(TextExplanandum):
    """The head is a module of its own that reads the first token's hidden state."""

    def head(self, pooled: Tensor) -> Tensor:
        scores: Tensor = self.model.classifier(pooled.unsqueeze(1))
        return scores

    def head_matrices(self) -> list[Tensor]:
        return [self.model.classifier.dense.weight, self.model.classifier.out_proj.weight]


class ElectraExplanandum(_DenseHead):
    """ELECTRA: as BERT, with embeddings that may be narrower than hidden states."""

    family = "electra"
    class_name = "ElectraForSequenceClassification"


class RobertaExplanandum(_DenseHead):
    """RoBERTa: positions count from the padding id on, and there are no token types."""

    family = "roberta"
    class_name = "RobertaForSequenceClassification"

    @staticmethod
    def longest(config: Any) -> int:
        return int(config.max_position_embeddings - config.pad_token_id - 1)

    def positions(self, input_ids: Tensor, first: int = 0) -> Tensor:
        return super().positions(input_ids, self.model.config.pad_token_id + 1)

    def token_types(self, input_ids: Tensor) -> Tensor:
        return torch.zeros_like(input_ids, dtype=torch.int64)


class XlmRobertaExplanandum(RobertaExplanandum):
    """XLM-RoBERTa: RoBERTa with another vocabulary."""

    family = "xlm-roberta"
    class_name = "XLMRobertaForSequenceClassification"


class DistilBertExplanandum(TextExplanandum):
    """DistilBERT: no token types; the head is a ReLU layer and a linear one."""

    family = "distilbert"
    class_name = "DistilBertForSequenceClassification"
    takes_types = False

    def layers(self) -> Sequence[nn.Module]:
        return list(self.base.transformer.layer)

    def head(self, pooled: Tensor) -> Tensor:
        scores: Tensor = self.model.classifier(torch.relu(self.model.pre_classifier(pooled)))
        return scores

    def head_matrices(self) -> list[Tensor]:
        return [self.model.pre_classifier.weight, self.model.classifier.weight]
