"""A Triton kernel for the feed-forward's first product, with SwiGLU in its end: the raised features are never written.

Rows of gate and up take turns in the weight, so that both stand side by side in a tile of the product, in the registers
of one thread. As many programs as the GPU has multiprocessors walk over the tiles, and tiles are copied by the GPU's
own engine (Hopper's TMA; by ordinary loads before Hopper). Products are summed in float32. Not handled: gradients;
float32, whose tiles do not fit, and which gains nothing.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

# (rows, columns of the product, depth, warps, stages) of a tile: which is best, only the GPU can tell.
TILES = ((128, 256, 64, 8, 3), (128, 128, 64, 4, 4), (128, 128, 32, 4, 3))
_GROUP = 8  # tiles of rows that share the weights they read
_INTERPRETED_PROGRAMS = 3


@triton.jit(do_not_specialize=["n_rows", "n_programs"])
def _swiglu_kernel(
    x,
    weight,
    out,
    n_rows,
    n_programs,
    n_columns: tl.constexpr,
    n_deep: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    deep: tl.constexpr,
    group: tl.constexpr,
):
    """out [n_rows, n_columns / 2] of x [n_rows, n_deep] and weight [n_columns, n_deep]: descriptors of their tiles."""
    across: tl.constexpr = (n_columns + columns - 1) // columns
    down = tl.cdiv(n_rows, rows)
    per_group = group * across
    for tile in tl.range(tl.program_id(0), down * across, n_programs, flatten=True):
        first_row = tile // per_group * group
        in_group = min(down - first_row, group)
        row = (first_row + tile % per_group % in_group) * rows
        column = tile % per_group // in_group * columns
        raised = tl.zeros((rows, columns), tl.float32)
        for depth in range(0, n_deep, deep):
            raised = tl.dot(x.load([row, depth]), weight.load([column, depth]).T, raised)
        gate, up = tl.split(tl.reshape(raised, (rows, columns // 2, 2)))
        out.store([row, column // 2], (gate * tl.sigmoid(gate) * up).to(out.dtype))


def swiglu(x: Tensor, weight: Tensor, tile: tuple[int, int, int, int, int] = TILES[0]) -> Tensor:
    """As `plain.swiglu` in half precision; all tensors contiguous, D and F multiples of 8; tile: one of `TILES`."""
    n_columns, n_deep = weight.shape
    flat = x.view(-1, n_deep)
    out = x.new_empty(*x.shape[:-1], n_columns // 2)
    rows, columns, deep, n_warps, n_stages = tile
    n_tiles = triton.cdiv(len(flat), rows) * triton.cdiv(n_columns, columns)
    n_programs = min(n_tiles, _programs(x.device))
    described = (
        TensorDescriptor.from_tensor(flat, [rows, deep]),
        TensorDescriptor.from_tensor(weight, [columns, deep]),
        TensorDescriptor.from_tensor(out.view(-1, n_columns // 2), [rows, columns // 2]),
    )
    sizes = n_columns, n_deep, rows, columns, deep, _GROUP
    _swiglu_kernel[(n_programs,)](*described, len(flat), n_programs, *sizes, num_warps=n_warps, num_stages=n_stages)
    return out


def _programs(device: torch.device) -> int:
    if device.type != "cuda":
        return _INTERPRETED_PROGRAMS
    n_programs: int = torch.cuda.get_device_properties(device).multi_processor_count
    return n_programs
