"""A Triton kernel for attention over short rows that rotates queries and keys itself, and knows where rows end.

    packed [B, T, 3, H, d] -> one program for one head of one row and some of its queries
      -> rotates its queries, then block by block the keys -> scores, softmax as it goes, values -> [B, T, H * d]

Rotated queries and keys are never written, and no bias is read: keys end where their row ends. Softmax is computed in
float32, products in the precision of what is read. Not handled: gradients; causal attention.
Source: Dao et al., "FlashAttention" (the running softmax).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from wyr_batch.kernels.plain import Padding

# (queries, keys, warps, stages) of a program: which is best, only the GPU can tell.
TILES = ((128, 32, 4, 3), (256, 32, 4, 3), (64, 32, 2, 3))
_LOG2_E = tl.constexpr(1.4426950408889634)
_LEAST = tl.constexpr(-1e30)  # a score of no key


@triton.jit
def _rotated(vectors, cos, sin, at, on, half: tl.constexpr, wide: tl.constexpr, stride: tl.constexpr):
    """Load vectors at some places and return the two halves of each, rotated, float32 [n, wide]."""
    feature = tl.arange(0, wide)[None, :]
    if half != wide:
        on = on & (feature < half)
    first = tl.load(vectors + at * stride + feature, mask=on, other=0.0)
    second = tl.load(vectors + at * stride + half + feature, mask=on, other=0.0)
    c = tl.load(cos + at * half + feature, mask=on, other=0.0)
    s = tl.load(sin + at * half + feature, mask=on, other=0.0)
    return first * c - second * s, second * c + first * s


@triton.jit(do_not_specialize=["n_tokens"])
def _attend_kernel(
    packed,
    cos,
    sin,
    lengths,
    out,
    n_tokens,
    ragged: tl.constexpr,
    n_heads: tl.constexpr,
    half: tl.constexpr,
    wide: tl.constexpr,
    queries: tl.constexpr,
    keys: tl.constexpr,
):
    """One program some queries of one head of one row."""
    row, head = (tl.program_id(0) // n_heads).to(tl.int64), tl.program_id(0) % n_heads
    length = n_tokens
    if ragged:
        length = tl.load(lengths + row)
    width: tl.constexpr = n_heads * 2 * half
    dtype = packed.dtype.element_ty
    query = packed + row * n_tokens * (3 * width) + head * (2 * half)
    query_at = (tl.program_id(1) * queries + tl.arange(0, queries))[:, None]
    first, second = _rotated(query, cos, sin, query_at, query_at < length, half, wide, 3 * width)
    first, second = (first * _LOG2_E).to(dtype), (second * _LOG2_E).to(dtype)
    feature = tl.arange(0, 2 * wide)[None, :]
    top = tl.full((queries,), _LEAST, tl.float32)
    total = tl.zeros((queries,), tl.float32)
    mixed = tl.zeros((queries, 2 * wide), tl.float32)
    for start in range(0, length, keys):
        key_at = start + tl.arange(0, keys)
        at, on = key_at[:, None], (key_at < length)[:, None]
        key_first, key_second = _rotated(query + width, cos, sin, at, on, half, wide, 3 * width)
        score = tl.dot(first, key_first.to(dtype).T)
        score = tl.dot(second, key_second.to(dtype).T, score)
        score = tl.where((key_at < length)[None, :], score, _LEAST)
        new_top = tl.maximum(top, tl.max(score, axis=1))
        share = tl.math.exp2(score - new_top[:, None])
        shrink = tl.math.exp2(top - new_top)
        total = total * shrink + tl.sum(share, axis=1)
        if half != wide:
            on = on & (feature < 2 * half)
        values = tl.load(query + 2 * width + at * (3 * width) + feature, mask=on, other=0.0)
        mixed = tl.dot(share.to(dtype), values, mixed * shrink[:, None])
        top = new_top
    place = out + (row * n_tokens + query_at) * width + head * (2 * half) + feature
    inside = query_at < n_tokens
    if half != wide:
        inside = inside & (feature < 2 * half)
    tl.store(place, (mixed / total[:, None]).to(dtype), mask=inside)


def attend(
    packed: Tensor,
    cos: Tensor,
    sin: Tensor,
    padding: Padding | None,
    tile: tuple[int, int, int, int] = TILES[0],
) -> Tensor:
    """As `plain.attend`; all tensors contiguous, every row with a token; tile: one of `TILES`."""
    rows, n_tokens, _, n_heads, head_size = packed.shape
    out = torch.empty(rows, n_tokens, n_heads * head_size, dtype=packed.dtype, device=packed.device)
    half = head_size // 2
    wide = max(16, triton.next_power_of_2(half))
    queries, keys, n_warps, n_stages = tile
    lengths, ragged = (cos, False) if padding is None else (padding.lengths, True)
    sizes = ragged, n_heads, half, wide, queries, keys
    grid = rows * n_heads, triton.cdiv(n_tokens, queries)  # the second axis ends at 65,535
    _attend_kernel[grid](packed, cos, sin, lengths, out, n_tokens, *sizes, num_warps=n_warps, num_stages=n_stages)
    return out
