"""Triton kernels that pass over memory once where torch passes several times: embeddings, sums and their layer norms,
rotary positions.

Sums, means and rotations are computed in float32 whatever the precision of what is read and written. Not handled:
gradients; rows of more features than one program holds (65,536).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from wyr_batch.kernels.plain import Norm


@triton.jit
def _store_norm(x, weight, bias, eps, normed, place, at, n_features: tl.constexpr):
    """Layer-norm x [block], 0 beyond its features, and store it."""
    inside = at < n_features
    centred = tl.where(inside, x - tl.sum(x, axis=0) / n_features, 0.0)
    deviation = tl.sqrt(tl.sum(centred * centred, axis=0) / n_features + eps)
    w = tl.load(weight + at, mask=inside, other=0.0)
    b = tl.load(bias + at, mask=inside, other=0.0)
    tl.store(normed + place, (centred / deviation * w + b).to(normed.dtype.element_ty), mask=inside)


@triton.jit
def _embed_norm_kernel(
    ids,
    embeddings,
    mask,
    weight,
    bias,
    eps,
    embedded,
    normed,
    pad_id: tl.constexpr,
    masked: tl.constexpr,
    n_features: tl.constexpr,
    block: tl.constexpr,
):
    """One program a token of [B * T]."""
    token = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    inside = at < n_features
    place = token * n_features + at
    word = tl.load(ids + token).to(tl.int64)
    x = tl.load(embeddings + word * n_features + at, mask=inside, other=0.0)
    x = tl.where(word == pad_id, 0.0, x)
    if masked:
        x *= tl.load(mask + token)
    tl.store(embedded + place, x, mask=inside)
    _store_norm(x, weight, bias, eps, normed, place, at, n_features)


def embed_norm(
    input_ids: Tensor, embeddings: Tensor, pad_id: int, mask: Tensor | None, norm: Norm, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """As `plain.embed_norm`; all tensors contiguous."""
    n_features = embeddings.shape[1]
    embedded = embeddings.new_empty(*input_ids.shape, n_features)
    normed = torch.empty_like(embedded, dtype=dtype)
    scaled, masked = (embeddings, False) if mask is None else (mask, True)
    sizes = pad_id, masked, n_features, triton.next_power_of_2(n_features)
    grid, warps = (input_ids.numel(),), _warps(n_features)
    _embed_norm_kernel[grid](input_ids, embeddings, scaled, *norm, embedded, normed, *sizes, num_warps=warps)
    return embedded, normed


@triton.jit
def _add_norm_kernel(residual, update, weight, bias, eps, total, normed, n_features: tl.constexpr, block: tl.constexpr):
    """One program a row of [B * T, D]."""
    at = tl.arange(0, block)
    inside = at < n_features
    place = tl.program_id(0).to(tl.int64) * n_features + at
    x = tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    x += tl.load(update + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(total + place, x, mask=inside)
    _store_norm(x, weight, bias, eps, normed, place, at, n_features)


def add_norm(residual: Tensor, update: Tensor, norm: Norm, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """As `plain.add_norm`; all tensors contiguous."""
    n_features = residual.shape[-1]
    total, normed = torch.empty_like(residual), torch.empty_like(residual, dtype=dtype)
    grid, warps = (residual.numel() // n_features,), _warps(n_features)
    block = triton.next_power_of_2(n_features)
    _add_norm_kernel[grid](residual, update, *norm, total, normed, n_features, block, num_warps=warps)
    return total, normed


def _warps(n_features: int) -> int:
    """Return how many warps share a row: each thread has 16 features of it."""
    return min(8, max(1, n_features // 512))


@triton.jit(do_not_specialize=["n_tokens"])
def _rotate_kernel(
    packed, cos, sin, n_tokens, n_pairs: tl.constexpr, half: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr
):
    """One program a token of [B * T, 3, H, 2 half]: its first `n_pairs` = 2 H vectors, queries and keys."""
    token = tl.program_id(0).to(tl.int64)
    row, column = tl.arange(0, rows)[:, None], tl.arange(0, columns)[None, :]
    inside = (row < n_pairs) & (column < half)
    first = packed + token * (3 * n_pairs * half) + row * (2 * half) + column  # 3 H vectors of 2 half features
    turn = (token % n_tokens) * half + column
    c = tl.load(cos + turn, mask=column < half, other=0.0)
    s = tl.load(sin + turn, mask=column < half, other=0.0)
    x = tl.load(first, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(first + half, mask=inside, other=0.0).to(tl.float32)
    tl.store(first, (x * c - y * s).to(packed.dtype.element_ty), mask=inside)
    tl.store(first + half, (y * c + x * s).to(packed.dtype.element_ty), mask=inside)


def rotate(packed: Tensor, cos: Tensor, sin: Tensor) -> None:
    """As `plain.rotate`, in place; all tensors contiguous."""
    rows, n_tokens, _, n_heads, head_size = packed.shape
    half = head_size // 2
    blocks = triton.next_power_of_2(2 * n_heads), triton.next_power_of_2(half)
    _rotate_kernel[(rows * n_tokens,)](packed, cos, sin, n_tokens, 2 * n_heads, half, *blocks, num_warps=4)
