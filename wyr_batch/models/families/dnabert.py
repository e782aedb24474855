"""DNABERT-2 and DNABERT-S, written out so that no remote code is ever executed.

A BERT without positions: attention scores fall with distance (ALiBi), the feed-forward is a gated GELU, and layers are
normalised after the sum. Tensor names are those of the published checkpoints, so their files load strictly.

Sources: Zhou et al., "DNABERT-2", ICLR 2024; Portes et al., "MosaicBERT", NeurIPS 2023; Press et al., "Train Short,
Test Long" (ALiBi); Shazeer, "GLU Variants Improve Transformer". Not handled: the pooler, the language-model head,
dropout.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wyr_batch.checks.fields import Fields
from wyr_batch.checks.files import shown_path
from wyr_batch.errors import ModelError
from wyr_batch.models.encoder import MOST_LAYERS, MOST_WIDTH, padding_bias
from wyr_batch.models.families.heads import LinearHeads
from wyr_batch.models.families.tokenised import Tokenised
from wyr_batch.models.families.tokenizer import TokenizerInfo
from wyr_batch.models.precision import halve_linears


@dataclass(frozen=True, slots=True)
class DnabertConfig:
    """Sizes of an encoder, named as the published config.json names them."""

    vocab_size: int = 4096
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    layer_norm_eps: float = 1e-12
    type_vocab_size: int = 2
    pad_token_id: int = 0
    max_position_embeddings: int = 512

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def from_json(cls, path: Path) -> DnabertConfig:
        """Read a published config.json. Raises: ModelError naming the field that is wrong."""
        fields = Fields.read(path, ModelError, "Name the folder of a DNABERT-2 model.")
        usual = cls()

        def size(name: str, most: int = MOST_WIDTH) -> int:
            return fields.whole(name, getattr(usual, name), least=1, most=most)

        vocab_size = size("vocab_size")
        config = cls(
            vocab_size=vocab_size,
            hidden_size=size("hidden_size"),
            num_hidden_layers=size("num_hidden_layers", MOST_LAYERS),
            num_attention_heads=size("num_attention_heads"),
            intermediate_size=size("intermediate_size"),
            layer_norm_eps=fields.number("layer_norm_eps", usual.layer_norm_eps, least=0, most=1),
            type_vocab_size=size("type_vocab_size"),
            pad_token_id=fields.whole("pad_token_id", usual.pad_token_id, least=0, most=vocab_size - 1),
            max_position_embeddings=size("max_position_embeddings"),
        )
        if config.hidden_size % config.num_attention_heads:
            got = f"hidden_size {config.hidden_size} with {config.num_attention_heads} heads"
            raise ModelError(shown_path(path), got, "a whole number of features per head")
        return config

    def to_json(self) -> str:
        """Return config.json text in the published layout."""
        fixed = {"model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_act": "gelu"}
        return json.dumps({**fixed, "alibi_starting_size": 512, **asdict(self)}, indent=2) + "\n"


def alibi_slopes(n_heads: int) -> list[float]:
    """Return how fast the scores of each head fall with distance.

    Of 2**k heads head i falls by 2**(-8 i / n), i from 1; of other numbers, as many as there are of the power of two
    below, then every other one of the power above.

    >>> alibi_slopes(4), alibi_slopes(3)
    ([0.25, 0.0625, 0.015625, 0.00390625], [0.0625, 0.00390625, 0.25])
    """
    power = 1 << (n_heads.bit_length() - 1)

    def slopes(n: int) -> list[float]:
        return [2.0 ** (-8 * i / n) for i in range(1, n + 1)]

    return [*slopes(power), *slopes(2 * power)[::2]][:n_heads]


class _SelfAttention(nn.Module):
    def __init__(self, config: DnabertConfig) -> None:
        super().__init__()
        self.n_heads, self.head_size = config.num_attention_heads, config.head_size
        self.Wqkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)

    def forward(self, x: Tensor, bias: Tensor, explicit: bool) -> Tensor:
        rows, n_tokens, width = x.shape
        shape = (rows, n_tokens, self.n_heads, self.head_size)
        query, key, value = (part.view(shape).transpose(1, 2) for part in self.Wqkv(x).chunk(3, dim=-1))
        query = query * self.head_size**-0.5
        if explicit:
            mixed: Tensor = torch.softmax(query @ key.transpose(2, 3) + bias, dim=-1) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)
        joined: Tensor = mixed.transpose(1, 2).reshape(rows, n_tokens, width)
        return joined


class _Output(nn.Module):
    def __init__(self, config: DnabertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class _Attention(nn.Module):
    def __init__(self, config: DnabertConfig) -> None:
        super().__init__()
        self.self = _SelfAttention(config)
        self.output = _Output(config)

    def forward(self, x: Tensor, bias: Tensor, explicit: bool) -> Tensor:
        out: Tensor = self.output.LayerNorm(x + self.output.dense(self.self(x, bias, explicit)))
        return out


class _GatedFeedForward(nn.Module):
    def __init__(self, config: DnabertConfig) -> None:
        super().__init__()
        self.gated_layers = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.wo = nn.Linear(config.intermediate_size, config.hidden_size)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gated_layers(x).chunk(2, dim=-1)
        out: Tensor = self.layernorm(x + self.wo(F.gelu(gate) * up))
        return out


class _Layer(nn.Module):
    def __init__(self, config: DnabertConfig) -> None:
        super().__init__()
        self.attention = _Attention(config)
        self.mlp = _GatedFeedForward(config)

    def forward(self, x: Tensor, bias: Tensor, explicit: bool) -> Tensor:
        out: Tensor = self.mlp(self.attention(x, bias, explicit))
        return out


class _Embeddings(nn.Module):
    def __init__(self, config: DnabertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class _Stack(nn.Module):
    def __init__(self, config: DnabertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))


class DnabertEncoder(nn.Module):
    """Embeddings of tokens to hidden states; `explicit_attention` as in `Encoder`."""

    slopes: Tensor

    def __init__(self, config: DnabertConfig) -> None:
        super().__init__()
        self.explicit_attention = False
        self.embeddings = _Embeddings(config)
        self.encoder = _Stack(config)
        slopes = torch.tensor(alibi_slopes(config.num_attention_heads))
        self.register_buffer("slopes", slopes[:, None, None], persistent=False)

    def encode(self, embedded: Tensor, valid: Tensor) -> Tensor:
        """Return final hidden states [B, T, D] of word embeddings [B, T, D]; valid: bool [B, T], True at tokens."""
        parts = self.embeddings
        hidden: Tensor = parts.LayerNorm(embedded + parts.token_type_embeddings.weight[0])
        places = torch.arange(embedded.shape[1], device=embedded.device)
        distance = (places[:, None] - places[None, :]).abs()
        bias = padding_bias(valid, hidden.dtype) - self.slopes * distance.to(hidden.dtype)  # [B, H, T, T]
        for layer in self.encoder.layer:
            hidden = layer(hidden, bias, self.explicit_attention)
        return hidden


class DnabertExplanandum(Tokenised, LinearHeads):
    """A DNABERT-2 or DNABERT-S encoder, one pooled vector a read, one linear head a rank."""

    family = "dnabert"

    def __init__(
        self, config: DnabertConfig, n_classes: Sequence[int], tokenizer: TokenizerInfo, pooling: str = "mean"
    ) -> None:
        super().__init__(n_classes, pooling)
        self.config = config
        self.vocab_size, self.max_tokens = config.vocab_size, config.max_position_embeddings
        self.use_tokenizer(tokenizer)
        self.base_model = DnabertEncoder(config)
        self.add_heads(config.hidden_size, n_classes)

    def embed(self, input_ids: Tensor) -> Tensor:
        embedded: Tensor = self.base_model.embeddings.word_embeddings(input_ids)
        return embedded * self.valid(input_ids).unsqueeze(-1).to(embedded.dtype)

    def encode(self, embedded: Tensor, input_ids: Tensor) -> Tensor:
        return self.base_model.encode(embedded, self.valid(input_ids))

    def config_json(self) -> str:
        return self.config.to_json()

    def halve(self, dtype: torch.dtype) -> None:
        halve_linears(self.base_model, dtype)

    def layers(self) -> Sequence[nn.Module]:
        return list(self.base_model.encoder.layer)

    def write_out_attention(self, on: bool = True) -> None:
        self.base_model.explicit_attention = on
