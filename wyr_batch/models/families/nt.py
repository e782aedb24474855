"""Nucleotide Transformer v2: 6-mers, rotary positions, SwiGLU; see models/encoder.py."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wyr_batch.models.encoder import Encoder, EncoderConfig
from wyr_batch.models.families.heads import LinearHeads
from wyr_batch.models.precision import halve_encoder
from wyr_batch.vocabulary import SIX_MERS, Vocabulary


class _BaseModel(nn.Module):
    """Holds the encoder under the name `esm`, as the published checkpoints do."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.esm = Encoder(config)


class NtExplanandum(LinearHeads):
    """An NT v2 encoder, one pooled vector a read, one linear head a rank. `<cls>` has a mask value like any token."""

    family = "nucleotide-transformer-v2"

    def __init__(self, config: EncoderConfig, n_classes: Sequence[int], pooling: str = "mean") -> None:
        super().__init__(n_classes, pooling)
        self.config = config
        self.vocab_size, self.pad_id = config.vocab_size, config.pad_token_id
        self.max_tokens = config.max_position_embeddings
        self.base_model = _BaseModel(config)
        self.add_heads(config.hidden_size, n_classes)

    @property
    def encoder(self) -> Encoder:
        return self.base_model.esm

    @property
    def vocabulary(self) -> Vocabulary:
        return SIX_MERS

    def embed(self, input_ids: Tensor) -> Tensor:
        return self.encoder.embed(input_ids)

    def encode(self, embedded: Tensor, input_ids: Tensor) -> Tensor:
        return self.encoder.encode(embedded, self.valid(input_ids))

    def config_json(self) -> str:
        return self.config.to_json()

    def content(self, input_ids: Tensor) -> Tensor:
        content = self.valid(input_ids)
        content[:, 0] = False  # `<cls>`
        return content

    def halve(self, dtype: torch.dtype) -> None:
        halve_encoder(self.encoder, dtype)

    def write_out_attention(self, on: bool = True) -> None:
        self.encoder.explicit_attention = on

    def layers(self) -> Sequence[nn.Module]:
        return list(self.encoder.encoder.layer)

    def compile_encoder(self) -> None:
        self.encoder.encode = torch.compile(self.encoder.encode, dynamic=True)  # type: ignore[method-assign]
