"""The encoder's steps beside its plain products, in torch: the reference that a kernel of this folder must equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


def add_norm(
    residual: Tensor, update: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Add to the residual stream, and layer-norm the sum.

    Args:
        residual: float32 [B, T, D]; update: [B, T, D] in the precision of products.
        weight, bias: float32 [D] of the layer norm.
        dtype: of what goes into the next product.
    Returns: the sum, float32 [B, T, D], and its layer norm, computed in float32 and given in `dtype`.
    """
    total = residual + update
    return total, F.layer_norm(total, weight.shape, weight, bias, eps).to(dtype)


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


def swiglu(x: Tensor, weight: Tensor) -> Tensor:
    """Return silu(gate) * up of x [..., D] in its precision, [..., F]; weight [2 F, D]: the gate's rows, then up's.

    Source: Shazeer, "GLU Variants Improve Transformer".
    """
    gate, up = F.linear(x, weight).chunk(2, dim=-1)
    return F.silu(gate) * up


AddNorm = Callable[[Tensor, Tensor, Tensor, Tensor, float, torch.dtype], tuple[Tensor, Tensor]]
Rotate = Callable[[Tensor, Tensor, Tensor], None]
Swiglu = Callable[[Tensor, Tensor], Tensor]


class Steps(NamedTuple):
    """One function for each step, called as those above."""

    add_norm: AddNorm
    rotate: Rotate
    swiglu: Swiglu


PLAIN = Steps(add_norm, rotate, swiglu)
