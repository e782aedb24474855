"""The encoder's steps beside its plain products, in torch: the reference that a kernel of this folder must equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Padding(NamedTuple):
    """Where the rows of a batch end.

    Attributes:
        lengths: int32 [B], tokens of each row.
        valid: bool [B, T], True at tokens.
    """

    lengths: Tensor
    valid: Tensor

    @classmethod
    def of(cls, valid: Tensor) -> Padding:
        return cls(valid.sum(dim=1, dtype=torch.int32), valid)


class Norm(NamedTuple):
    """A layer norm: float32 [D] each, and the epsilon."""

    weight: Tensor
    bias: Tensor
    eps: float


def embed_norm(
    input_ids: Tensor, embeddings: Tensor, pad_id: int, mask: Tensor | None, norm: Norm, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Look words up, scale them by their mask values, and layer-norm them.

    Args:
        input_ids: int [B, T]; embeddings: float32 [V, D]; pad_id: what stands for no word, whose embedding is 0.
        mask: float32 [B, T], None for all ones.
        dtype: of what goes into the next product.
    Returns: the scaled embeddings, float32 [B, T, D], and their layer norm, computed in float32 and given in `dtype`.
    """
    embedded = F.embedding(input_ids, embeddings) * (input_ids != pad_id).unsqueeze(-1)
    if mask is not None:
        embedded = embedded * mask.unsqueeze(-1)
    return embedded, F.layer_norm(embedded, norm.weight.shape, *norm).to(dtype)


def add_norm(residual: Tensor, update: Tensor, norm: Norm, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Add to the residual stream, and layer-norm the sum.

    Args:
        residual: float32 [B, T, D]; update: [B, T, D] in the precision of products.
        dtype: of what goes into the next product.
    Returns: the sum, float32 [B, T, D], and its layer norm, computed in float32 and given in `dtype`.
    """
    total = residual + update
    return total, F.layer_norm(total, norm.weight.shape, *norm).to(dtype)


def rotate(packed: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Rotate queries and keys by position, in place; the second half of their features is the partner of the first.

    Args:
        packed: [B, T, 3, H, d], contiguous: queries, keys and values.
        cos, sin: float32 [T, d / 2].
    Source: Su et al., "RoFormer".
    """
    first, second = packed[:, :, :2].chunk(2, dim=-1)
    cos, sin = (table[:, None, None].to(packed.dtype) for table in (cos, sin))
    packed[:, :, :2] = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def attend(
    packed: Tensor,
    cos: Tensor,
    sin: Tensor,
    padding: Padding | None,
    rotation: Callable[[Tensor, Tensor, Tensor], None] = rotate,
) -> Tensor:
    """Rotate queries and keys by position, and mix the values.

    Args:
        packed: [B, T, 3, H, d], contiguous: queries, scaled already, keys and values. It may be overwritten.
        cos, sin: float32 [T, d / 2].
        padding: None if no row has any.
    Returns: [B, T, H * d]; what stands at padding means nothing, but is finite.
    """
    rotation(packed, cos, sin)
    query, key, value = (part.transpose(1, 2) for part in packed.unbind(2))  # [B, H, T, d]
    keys = None if padding is None else padding.valid[:, None, None]
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=keys, scale=1.0)
    return mixed.transpose(1, 2).flatten(2)


def swiglu(x: Tensor, weight: Tensor) -> Tensor:
    """Return silu(gate) * up of x [..., D] in its precision, [..., F]; weight [2 F, D]: rows of gate and up in turn.

    Source: Shazeer, "GLU Variants Improve Transformer".
    """
    raised = F.linear(x, weight)
    gate, up = raised[..., ::2], raised[..., 1::2]
    return F.silu(gate) * up


EmbedNorm = Callable[[Tensor, Tensor, int, Tensor | None, Norm, torch.dtype], tuple[Tensor, Tensor]]
AddNorm = Callable[[Tensor, Tensor, Norm, torch.dtype], tuple[Tensor, Tensor]]
Attend = Callable[[Tensor, Tensor, Tensor, Padding | None], Tensor]
Swiglu = Callable[[Tensor, Tensor], Tensor]


class Steps(NamedTuple):
    """One function for each step, called as those above."""

    embed_norm: EmbedNorm
    add_norm: AddNorm
    attend: Attend
    swiglu: Swiglu


PLAIN = Steps(embed_norm, add_norm, attend, swiglu)
