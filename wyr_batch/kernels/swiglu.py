"""A Triton kernel for the feed-forward's first product, with SwiGLU in its end: the raised features are never written.

Each program computes one tile of gate and the same tile of up, and writes silu(gate) * up. Products are summed in
float32; float32 inputs are multiplied as float32, not as TF32. Not handled: gradients.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# (rows, features, depth, warps, stages) of a tile: which is best, only the GPU can tell.
TILES = ((128, 64, 32, 4, 4), (128, 128, 32, 8, 3), (128, 128, 64, 8, 3), (64, 64, 64, 4, 4))
_GROUP = 8  # tiles of rows that share the weights they read


@triton.jit
def _swiglu_kernel(
    x,
    weight,
    out,
    n_rows,
    n_out,
    n_deep,
    rows: tl.constexpr,
    columns: tl.constexpr,
    deep: tl.constexpr,
    group: tl.constexpr,
):
    """out [n_rows, n_out] of x [n_rows, n_deep] and weight [2 n_out, n_deep]."""
    across = tl.cdiv(n_out, columns)
    per_group = group * across
    first_row = tl.program_id(0) // per_group * group
    in_group = min(tl.cdiv(n_rows, rows) - first_row, group)
    within = tl.program_id(0) % per_group
    row = (first_row + within % in_group) * rows + tl.arange(0, rows)
    column = within // in_group * columns + tl.arange(0, columns)
    depth = tl.arange(0, deep)
    x_row = x + row.to(tl.int64)[:, None] * n_deep
    gate_row = weight + column.to(tl.int64)[None, :] * n_deep
    gate = tl.zeros((rows, columns), tl.float32)
    up = tl.zeros((rows, columns), tl.float32)
    for start in range(0, n_deep, deep):
        k = start + depth
        a = tl.load(x_row + k[None, :], mask=(row < n_rows)[:, None] & (k < n_deep)[None, :], other=0.0)
        needed = (column < n_out)[None, :] & (k < n_deep)[:, None]
        b = tl.load(gate_row + k[:, None], mask=needed, other=0.0)
        c = tl.load(gate_row + n_out * n_deep + k[:, None], mask=needed, other=0.0)
        gate = tl.dot(a, b, gate, input_precision="ieee")
        up = tl.dot(a, c, up, input_precision="ieee")
    place = row.to(tl.int64)[:, None] * n_out + column[None, :]
    mixed = gate * tl.sigmoid(gate) * up
    tl.store(out + place, mixed.to(out.dtype.element_ty), mask=(row < n_rows)[:, None] & (column < n_out)[None, :])


def swiglu(x: Tensor, weight: Tensor, tile: tuple[int, int, int, int, int] = TILES[0]) -> Tensor:
    """As `plain.swiglu`; all tensors contiguous; tile: one of `TILES`."""
    n_deep, n_out = x.shape[-1], weight.shape[0] // 2
    n_rows = x.numel() // n_deep
    out = torch.empty((*x.shape[:-1], n_out), dtype=x.dtype, device=x.device)
    rows, columns, deep, n_warps, n_stages = tile
    grid = (triton.cdiv(n_rows, rows) * triton.cdiv(n_out, columns),)
    _swiglu_kernel[grid](
        x, weight, out, n_rows, n_out, n_deep, rows, columns, deep, _GROUP, num_warps=n_warps, num_stages=n_stages
    )
    return out
