"""The Nucleotide Transformer v2 encoder, written out so that no remote code is ever executed.

An ESM encoder with rotary positions, pre-layer-norm blocks and a SwiGLU feed-forward without bias. Tensor names
are those of the published checkpoints (`esm.` prefix left out), so their files load strictly.

Sources: Dalla-Torre et al., "Nucleotide Transformer", Nat Methods 2025; the published `config.json` fields;
Su et al., "RoFormer" (rotary positions); Shazeer, "GLU Variants Improve Transformer" (SwiGLU).
Not handled: learned position embeddings (the tensor is accepted and unused), the language-model head, dropout.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wyr_batch.checks.fields import Fields
from wyr_batch.checks.files import shown_path
from wyr_batch.errors import ModelError

# Added to the attention scores of padding. Large enough to give exactly 0 after softmax in float32 and float16,
# small enough not to overflow float16 when added to a score.
PADDING_SCORE = -1e4
# What no model comes near: a config.json that asks for more is damaged, and would take all memory or time.
MOST_WIDTH, MOST_LAYERS = 10**6, 1000


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """Sizes of an encoder, named as the published config.json names them."""

    vocab_size: int = 4107
    hidden_size: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 16
    intermediate_size: int = 2048
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 1
    max_position_embeddings: int = 2050

    @property
    def head_size(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def from_json(cls, path: Path) -> EncoderConfig:
        """Read a published config.json, refusing variants that this encoder does not compute.

        Raises: ModelError naming the field that differs.
        """
        fields = Fields.read(path, ModelError, "Name the folder of an NT v2 model.")
        expected = {
            "position_embedding_type": "rotary",
            "add_bias_fnn": False,
            "emb_layer_norm_before": False,
            "token_dropout": False,
        }
        for name, value in expected.items():
            if (got := fields.content.get(name, value)) != value:
                raise ModelError(
                    shown_path(path),
                    f"{name} {got!r}",
                    f"{value!r}",
                    "Only Nucleotide Transformer v2 encoders (rotary positions, SwiGLU) are supported.",
                )
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
            pad_token_id=fields.whole("pad_token_id", usual.pad_token_id, least=0, most=vocab_size - 1),
            max_position_embeddings=size("max_position_embeddings"),
        )
        if config.hidden_size % config.num_attention_heads or config.head_size % 2:
            raise ModelError(
                shown_path(path),
                f"hidden_size {config.hidden_size} with {config.num_attention_heads} heads",
                "an even number of features per head",
            )
        return config

    def to_json(self) -> str:
        """Return config.json text in the published layout, readable by the published code as well."""
        fixed = {
            "model_type": "esm",
            "architectures": ["EsmForMaskedLM"],
            "add_bias_fnn": False,
            "position_embedding_type": "rotary",
            "emb_layer_norm_before": False,
            "token_dropout": False,
            "tie_word_embeddings": False,
            "mask_token_id": 2,
            "attention_probs_dropout_prob": 0.0,
            "hidden_dropout_prob": 0.0,
            "torch_dtype": "float32",
        }
        return json.dumps(fixed | asdict(self), indent=2) + "\n"


def padding_bias(valid: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to attention scores: 0 at tokens, `PADDING_SCORE` at padding.

    Args:
        valid: bool [B, T], True at tokens.
        dtype: of the scores.
    Returns: [B, 1, 1, T].
    """
    return torch.where(valid, 0.0, PADDING_SCORE).to(dtype)[:, None, None, :]


def rotary_angles(n_tokens: int, inv_freq: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of each position's rotation, float32 [T, D/heads] each (halves repeated).

    Positions are whole numbers first, so that in a graph no length becomes a float.
    """
    positions = torch.arange(n_tokens, device=inv_freq.device, dtype=torch.int64)
    angles = positions[:, None].float() * inv_freq[None, :].float()  # [T, d/2]
    angles = torch.cat((angles, angles), dim=-1)  # [T, d]
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate [B, H, T, d] by position; the second half of d is the partner of the first."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class _Rotary(nn.Module):
    inv_freq: Tensor

    def __init__(self, head_size: int) -> None:
        super().__init__()
        exponents = torch.arange(0, head_size, 2, dtype=torch.int64).float() / head_size
        self.register_buffer("inv_freq", 1.0 / (10000**exponents))


class _SelfAttention(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.n_heads = config.num_attention_heads
        self.head_size = config.head_size
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.rotary_embeddings = _Rotary(config.head_size)

    def forward(self, x: Tensor, bias: Tensor, angles: tuple[Tensor, Tensor], explicit: bool) -> Tensor:
        rows, n_tokens = x.shape[0], x.shape[1]
        shape = (rows, n_tokens, self.n_heads, self.head_size)
        cos, sin = (a.to(x.dtype) for a in angles)
        # The scale goes on the query before the first product: the form that TensorRT fuses, and what ESM does.
        query = (self.query(x) * self.head_size**-0.5).view(shape).transpose(1, 2)  # [B, H, T, d]
        key = self.key(x).view(shape).transpose(1, 2)
        value = self.value(x).view(shape).transpose(1, 2)
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        bias = bias.to(query.dtype)
        if explicit:
            scores = query @ key.transpose(2, 3) + bias  # [B, H, T, T]
            mixed: Tensor = torch.softmax(scores, dim=-1) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)
        joined: Tensor = mixed.transpose(1, 2).reshape(rows, n_tokens, self.n_heads * self.head_size)
        return joined


class _Dense(nn.Module):
    """A linear layer under the name `dense`, where the published checkpoints keep it."""

    def __init__(self, n_in: int, n_out: int, bias: bool) -> None:
        super().__init__()
        self.dense = nn.Linear(n_in, n_out, bias=bias)


class _Attention(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.self = _SelfAttention(config)
        self.output = _Dense(config.hidden_size, config.hidden_size, bias=True)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class _Layer(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = _Attention(config)
        self.intermediate = _Dense(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.output = _Dense(config.intermediate_size, config.hidden_size, bias=False)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, bias: Tensor, angles: tuple[Tensor, Tensor], explicit: bool) -> Tensor:
        mixed = self.attention.self(self.attention.LayerNorm(x), bias, angles, explicit)
        x = x + self.attention.output.dense(mixed)
        gate, up = self.intermediate.dense(self.LayerNorm(x)).chunk(2, dim=-1)
        out: Tensor = x + self.output.dense(F.silu(gate) * up)
        return out


class _Embeddings(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)


class _Stack(nn.Module):
    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))
        self.emb_layer_norm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class Encoder(nn.Module):
    """Token ids (or embeddings) to hidden states.

    `explicit_attention` writes attention as products and a softmax, the form every ONNX runtime takes; otherwise
    torch's fused kernel is used. Both give the same numbers within float32 rounding.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.explicit_attention = False
        self.embeddings = _Embeddings(config)
        self.encoder = _Stack(config)

    def embed(self, input_ids: Tensor) -> Tensor:
        """Return word embeddings, [B, T, D]; exactly 0 at padding (whatever the checkpoint's padding row holds).

        Args:
            input_ids: int32 or int64 [B, T], right-padded with `pad_token_id`.
        """
        valid = (input_ids != self.config.pad_token_id).unsqueeze(-1)
        embedded: Tensor = self.embeddings.word_embeddings(input_ids)
        return embedded * valid.to(embedded.dtype)

    def encode(self, embedded: Tensor, valid: Tensor) -> Tensor:
        """Return final hidden states, after the last layer norm.

        Args:
            embedded: float [B, T, D].
            valid: bool [B, T], True at tokens; every row has at least one.
        Returns: [B, T, D]; what stands at padding means nothing.
        """
        rotary: _Rotary = self.encoder.layer[0].attention.self.rotary_embeddings  # type: ignore[union-attr, assignment]
        angles = rotary_angles(embedded.shape[1], rotary.inv_freq)
        bias = padding_bias(valid, embedded.dtype)
        hidden = embedded
        for layer in self.encoder.layer:
            hidden = layer(hidden, bias, angles, self.explicit_attention)
        final: Tensor = self.encoder.emb_layer_norm_after(hidden)
        return final

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.encode(self.embed(input_ids), input_ids != self.config.pad_token_id)
