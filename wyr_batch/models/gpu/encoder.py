"""The encoder as a GPU computes it best: made of a loaded encoder, whose own layout and numbers stay as they are.

Queries, keys and values are one product, with the scale of attention in its weights; rows of gate and up take turns in
the weight of another. Cosines and sines stand in one table for all lengths. Rows without padding need no mask, and so
get torch's fastest attention. Precision is that of models/precision.py: products and attention in halves if asked for,
the residual stream and layer norms in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from wyr_batch.kernels.plain import PLAIN, Attend, Norm, Padding, Steps
from wyr_batch.models.encoder import Encoder, rotary_angles


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
        up: D to 2 F, rows of gate and up in turn.
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
        gate, up = layer.intermediate.dense.weight.chunk(2)
        self.up = _linear(torch.stack((gate, up), dim=1).flatten(0, 1), None, dtype)
        self.down = _linear(layer.output.dense.weight, None, dtype)

    def attend(self, x: Tensor, cos: Tensor, sin: Tensor, padding: Padding | None, attend: Attend) -> Tensor:
        """Return what attention gives, [B, T, D], before its output product."""
        return attend(self.packed(x).unflatten(-1, (3, self.n_heads, self.head_size)), cos, sin, padding)


class GpuEncoder(nn.Module):
    """Token ids and mask values to hidden states, as `Encoder`; for inference.

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
        self.way: Way = self.run_layers

    def encode(self, input_ids: Tensor, mask: Tensor | None, padding: Padding | None) -> Tensor:
        """Return final hidden states, after the last layer norm.

        Args:
            input_ids: int [B, T].
            mask: float32 [B, T], what each word's embedding is multiplied by; None for all ones.
            padding: None if no row has any.
        Returns: float32 [B, T, D]; what stands at padding means nothing.
        """
        n_tokens = input_ids.shape[1]
        return self.way(input_ids, mask, padding, self.cos[:n_tokens], self.sin[:n_tokens])

    def run_layers(
        self,
        input_ids: Tensor,
        mask: Tensor | None,
        padding: Padding | None,
        cos: Tensor,
        sin: Tensor,
        steps: Steps = PLAIN,
    ) -> Tensor:
        """`encode` with rows of the table, [T, d / 2]."""
        layers: list[Any] = list(self.layers)
        norms: list[Any] = list(self.norms)
        words, pad_id = self.embeddings.word_embeddings.weight, self.config.pad_token_id
        residual, x = steps.embed_norm(input_ids, words, pad_id, mask, self._norm(norms[0]), self.dtype)
        for layer, norm in zip(layers, norms[1:], strict=True):
            mixed = layer.attend(x, cos, sin, padding, steps.attend)
            residual, x = steps.add_norm(residual, layer.out(mixed), self._norm(layer.norm), self.dtype)
            raised = steps.swiglu(x, layer.up.weight)
            dtype = residual.dtype if norm is norms[-1] else self.dtype
            residual, x = steps.add_norm(residual, layer.down(raised), self._norm(norm), dtype)
        return x

    def _norm(self, norm: Any) -> Norm:
        return Norm(norm.weight, norm.bias, self.config.layer_norm_eps)


Way = Callable[[Tensor, Tensor | None, Padding | None, Tensor, Tensor], Tensor]
