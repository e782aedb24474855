"""The encoder as a GPU computes it best: made of a loaded encoder, whose own layout and numbers stay as they are.

Queries, keys and values are one product, with the scale of attention in its weights. Cosines and sines stand in one
table for all lengths. Rows without padding need no mask, and so get torch's fastest attention. Precision is that of
models/precision.py: products and attention in halves if asked for, the residual stream and layer norms in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wyr_batch.kernels.plain import PLAIN, Rotate, Steps
from wyr_batch.models.encoder import Encoder, padding_bias, rotary_angles


def _linear(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, dtype=dtype)
    with torch.no_grad():
        made.weight.copy_(weight)
        if bias is not None:
            made.bias.copy_(bias)
    return made


class _GpuLayer(nn.Module):
    """The products of one layer.

    Attributes:
        packed: queries, keys and values, D to 3 D; the scale of attention is in the first.
        norm: between attention and feed-forward.
    """

    def __init__(self, layer: Any, n_heads: int, head_size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.n_heads, self.head_size = n_heads, head_size
        own = layer.attention.self
        parts = own.query, own.key, own.value
        scales = head_size**-0.5, 1.0, 1.0
        weight = torch.cat([part.weight * scale for part, scale in zip(parts, scales, strict=True)])
        bias = torch.cat([part.bias * scale for part, scale in zip(parts, scales, strict=True)])
        self.packed = _linear(weight, bias, dtype)
        self.out = _linear(layer.attention.output.dense.weight, layer.attention.output.dense.bias, dtype)
        self.norm = layer.LayerNorm
        self.up = _linear(layer.intermediate.dense.weight, None, dtype)
        self.down = _linear(layer.output.dense.weight, None, dtype)

    def attend(self, x: Tensor, bias: Tensor | None, cos: Tensor, sin: Tensor, rotate: Rotate) -> Tensor:
        """Return what attention gives, [B, T, D], before its output product."""
        rows, n_tokens = x.shape[:2]
        packed = self.packed(x).view(rows, n_tokens, 3, self.n_heads, self.head_size)
        rotate(packed, cos, sin)
        query, key, value = (part.transpose(1, 2) for part in packed.unbind(2))  # [B, H, T, d]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=1.0)
        return mixed.transpose(1, 2).reshape(rows, n_tokens, self.n_heads * self.head_size)


class GpuEncoder(nn.Module):
    """Token ids to embeddings to hidden states, as `Encoder`; for inference.

    Attributes:
        way: `run_layers`, or what gives the same numbers sooner.
    """

    cos: Tensor  # float32 [most tokens, d / 2]
    sin: Tensor

    def __init__(self, encoder: Encoder, dtype: torch.dtype, max_tokens: int) -> None:
        """
        Args:
            encoder: float32, left as it is.
            dtype: of products and attention.
            max_tokens: longest row, `<cls>` counted.
        """
        super().__init__()
        self.config, self.dtype = encoder.config, dtype
        self.embeddings = encoder.embeddings
        layers: list[Any] = list(encoder.encoder.layer)
        norms: list[Any] = [layer.attention.LayerNorm for layer in layers]
        heads = self.config.num_attention_heads, self.config.head_size
        self.layers = nn.ModuleList(_GpuLayer(layer, *heads, dtype) for layer in layers)
        self.norms = nn.ModuleList([*norms, encoder.encoder.emb_layer_norm_after])  # before each layer; after the last
        cos, sin = rotary_angles(max_tokens, layers[0].attention.self.rotary_embeddings.inv_freq)
        half = self.config.head_size // 2
        self.register_buffer("cos", cos[:, :half].clone(), persistent=False)
        self.register_buffer("sin", sin[:, :half].clone(), persistent=False)
        self.way: Callable[[Tensor, Tensor | None, Tensor, Tensor], Tensor] = self.run_layers

    def embed(self, input_ids: Tensor) -> Tensor:
        """Return word embeddings, float32 [B, T, D], 0 at padding."""
        valid = (input_ids != self.config.pad_token_id).unsqueeze(-1)
        embedded: Tensor = self.embeddings.word_embeddings(input_ids)
        return embedded * valid

    def encode(self, embedded: Tensor, valid: Tensor | None) -> Tensor:
        """Return final hidden states, after the last layer norm.

        Args:
            embedded: float32 [B, T, D].
            valid: bool [B, T], True at tokens; None if no row has padding.
        Returns: float32 [B, T, D]; what stands at padding means nothing.
        """
        n_tokens = embedded.shape[1]
        bias = None if valid is None else padding_bias(valid, self.dtype)
        return self.way(embedded, bias, self.cos[:n_tokens], self.sin[:n_tokens])

    def run_layers(
        self, embedded: Tensor, bias: Tensor | None, cos: Tensor, sin: Tensor, steps: Steps = PLAIN
    ) -> Tensor:
        """`encode` with the batch's bias [B, 1, 1, T] and rows of the table [T, d / 2]."""
        add_norm, eps = steps.add_norm, self.config.layer_norm_eps
        layers: list[Any] = list(self.layers)
        norms: list[Any] = list(self.norms)
        residual = embedded
        x: Tensor = norms[0](residual).to(self.dtype)
        for layer, norm in zip(layers, norms[1:], strict=True):
            mixed = layer.attend(x, bias, cos, sin, steps.rotate)
            residual, x = add_norm(residual, layer.out(mixed), layer.norm.weight, layer.norm.bias, eps, self.dtype)
            raised = steps.swiglu(x, layer.up.weight)
            dtype = embedded.dtype if norm is norms[-1] else self.dtype
            residual, x = add_norm(residual, layer.down(raised), norm.weight, norm.bias, eps, dtype)
        return x
