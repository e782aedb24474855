"""A Triton kernel for a bidirectional LSTM layer that gives hidden and cell states, of rows of different lengths.

    x -> one product for the input's part of all gates of both directions -> [B, T, 2, 4, H]
      -> one program for some rows and one direction walks along them, h and c in its registers -> h, c [B, T, ...]

cuDNN's LSTM returns hidden states only, so cell states would be computed a second time, and it knows no rows turned
around at their own ends. Here the backward direction reads its row from its last token, by index. All float32.
Not handled: gradients; hidden sizes for which the recurrent weights do not fit one program (128 and more).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

MOST_HIDDEN = 64
_ROWS = 16  # of one program: the least that tl.dot takes


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def _gate(gates, at, inside, h, weight, which: tl.constexpr, n_hidden: tl.constexpr):
    """One gate of one step before its activation: the input's part, and h [rows, block] times weight [block, block]."""
    return tl.dot(h, weight, tl.load(gates + at + which * n_hidden, mask=inside, other=0.0), input_precision="ieee")


@triton.jit
def _bilstm_kernel(
    gates,
    recurrent,
    lengths,
    hidden,
    cells,
    n_rows,
    n_tokens,
    n_hidden: tl.constexpr,
    rows: tl.constexpr,
    block: tl.constexpr,
):
    """One program some rows and one direction.

    gates [B, T, 2, 4, H]; recurrent [2, 4, H, H] (out, in); hidden, cells [B, T, 2, H], left alone at padding.
    """
    direction = tl.program_id(1)
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    feature = tl.arange(0, block)
    length = tl.load(lengths + row, mask=row < n_rows, other=0)
    row_start = row.to(tl.int64) * n_tokens

    inside = (feature < n_hidden)[:, None] & (feature < n_hidden)[None, :]
    turned = recurrent + direction * (4 * n_hidden * n_hidden) + feature[None, :] * n_hidden + feature[:, None]
    w_in = tl.load(turned, mask=inside, other=0.0)
    w_forget = tl.load(turned + n_hidden * n_hidden, mask=inside, other=0.0)
    w_new = tl.load(turned + 2 * n_hidden * n_hidden, mask=inside, other=0.0)
    w_out = tl.load(turned + 3 * n_hidden * n_hidden, mask=inside, other=0.0)

    h = tl.zeros((rows, block), tl.float32)
    c = tl.zeros((rows, block), tl.float32)
    for step in range(tl.max(length, axis=0)):
        token = tl.where(direction == 0, step, length - 1 - step)
        on = (step < length)[:, None] & (feature < n_hidden)[None, :]
        place = (row_start + token)[:, None] * 2 + direction  # among the vectors [B, T, 2]
        at = place * (4 * n_hidden) + feature[None, :]
        gate_in = tl.sigmoid(_gate(gates, at, on, h, w_in, 0, n_hidden))
        forget = tl.sigmoid(_gate(gates, at, on, h, w_forget, 1, n_hidden))
        new = _tanh(_gate(gates, at, on, h, w_new, 2, n_hidden))
        gate_out = tl.sigmoid(_gate(gates, at, on, h, w_out, 3, n_hidden))
        c = tl.where(on, forget * c + gate_in * new, 0.0)
        h = tl.where(on, gate_out * _tanh(c), 0.0)
        there = place * n_hidden + feature[None, :]
        tl.store(hidden + there, h, mask=on)
        tl.store(cells + there, c, mask=on)


def bilstm(x: Tensor, lengths: Tensor, w_ih: Tensor, w_hh: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Run one layer in both directions.

    Args:
        x: float32 [B, T, D].
        lengths: int32 [B], tokens of each row.
        w_ih: float32 [2 * 4 * H, D], forward's gates, then backward's, in torch's order i, f, g, o.
        w_hh: float32 [2, 4, H, H]; bias: float32 [2 * 4 * H], the sum of torch's two.
    Returns: hidden and cell states, float32 [B, T, 2, H]; 0 at padding.
    """
    rows, n_tokens, _ = x.shape
    n_hidden = w_hh.shape[-1]
    gates = F.linear(x, w_ih, bias)
    hidden = x.new_zeros(rows, n_tokens, 2, n_hidden)
    cells = torch.zeros_like(hidden)
    block = max(16, triton.next_power_of_2(n_hidden))
    grid = (triton.cdiv(rows, _ROWS), 2)
    _bilstm_kernel[grid](gates, w_hh, lengths, hidden, cells, rows, n_tokens, n_hidden, _ROWS, block, num_warps=4)
    return hidden, cells
