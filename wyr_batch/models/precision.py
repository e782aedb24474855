"""Half-precision copies of the fused function, float32 where halves would spoil it.

In half precision: the weights and products of the Explanandum's encoder (query, key, value, the dense layers), and the
attention of Nucleotide Transformers. In float32: embeddings and their product with the mask, layer norms (an epsilon of
1e-12 is 0 in float16), the residual stream, the attention of other families, pooling, heads, softmax over classes, and
the whole Explainer (its scan is wrong by 0.1 and more in half precision, and it is a small part of the work). Every
type is a cast in the module, so that an exported graph says what it computes: the form that TensorRT's strong typing
builds as it stands.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wyr_batch.models.encoder import Encoder
from wyr_batch.models.fused import Fused
from wyr_batch.models.numbers import full_precision

HALVES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class _CastNorm(nn.Module):
    """A layer norm computed in float32 whose result goes down to `dtype`."""

    def __init__(self, norm: nn.LayerNorm, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm, self.dtype = norm, dtype

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        out = F.layer_norm(full_precision(x), norm.normalized_shape, norm.weight, norm.bias, norm.eps)
        return out.to(self.dtype)


class _UpLinear(nn.Module):
    """A linear layer in half precision whose result goes up to float32: what is added to the residual stream."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        return full_precision(self.linear(x))


def halve_encoder(encoder: Encoder, dtype: torch.dtype) -> None:
    """Turn an encoder's products to half precision, in place; inputs and outputs stay float32."""
    layers: list[Any] = list(encoder.encoder.layer)
    for layer in layers:
        attention = layer.attention
        for linear in (attention.self.query, attention.self.key, attention.self.value, layer.intermediate.dense):
            linear.to(dtype)
        attention.output.dense = _UpLinear(attention.output.dense.to(dtype))
        layer.output.dense = _UpLinear(layer.output.dense.to(dtype))
        attention.LayerNorm = _CastNorm(attention.LayerNorm, dtype)
        layer.LayerNorm = _CastNorm(layer.LayerNorm, dtype)


class _HalfLinear(nn.Module):
    """A linear layer that computes in half precision and takes and gives float32."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self.linear, self.dtype = linear.to(dtype), dtype

    def forward(self, x: Tensor) -> Tensor:
        return full_precision(self.linear(x.to(self.dtype)))


def halve_linears(module: nn.Module, dtype: torch.dtype, leave: Sequence[str] = ()) -> None:
    """Turn every linear layer of a module to half precision, in place; all between them stays float32.

    Args:
        leave: names of children to leave as they are.
    """
    for name, child in module.named_children():
        if name in leave:
            continue
        if isinstance(child, nn.Linear):
            setattr(module, name, _HalfLinear(child, dtype))
        else:
            halve_linears(child, dtype)


def in_precision(fused: Fused, dtype: str) -> Fused:
    """Return a copy of the fused function whose encoder computes in 'float16' or 'bfloat16'; 'float32' is a copy."""
    copied = copy.deepcopy(fused)
    if dtype != "float32":
        copied.explanandum.halve(HALVES[dtype])
    return copied
