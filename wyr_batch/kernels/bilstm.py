"""A Triton kernel for a bidirectional LSTM layer that gives hidden and cell states, of rows of different lengths.

    the input's part of all gates of both directions: [B, T, 2, 4, H], or of each word, [V, 2, 4, H]
      -> one program for some rows and one direction walks along them, h and c in its registers -> h, c [B, T, ...]

The first layer reads words, so what they add to the gates is one table. cuDNN's LSTM returns hidden states only, so
cell states would be computed a second time, and it knows no rows turned around at their own ends. Here the backward
direction reads its row from its last token, by index. All float32: a recurrent product is three of TF32, which together
are as good as one of float32. Not handled: gradients; hidden sizes for which the recurrent weights do not fit one
program (128 and more).
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

MOST_HIDDEN = 64
_ROWS = 16  # of one program: the least that tl.dot takes


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def _place(words, row_start, step, length, direction, by_word: tl.constexpr):
    """Return where a step's gates stand among the vectors [B, T, 2] or [V, 2], and whether there is such a step."""
    token = tl.where(direction == 0, step, length - 1 - step)
    on = step < length
    vector = row_start + token
    if by_word:
        vector = tl.load(words + vector, mask=on, other=0).to(tl.int64)
    return vector * 2 + direction, on


@triton.jit
def _gates(gates, place, on, n_hidden: tl.constexpr, block: tl.constexpr):
    """Load what the input adds to the four gates of a step, [rows, block] each."""
    feature = tl.arange(0, block)
    at = gates + place[:, None] * (4 * n_hidden) + feature[None, :]
    inside = on[:, None] & (feature < n_hidden)[None, :]
    return (
        tl.load(at, mask=inside, other=0.0),
        tl.load(at + n_hidden, mask=inside, other=0.0),
        tl.load(at + 2 * n_hidden, mask=inside, other=0.0),
        tl.load(at + 3 * n_hidden, mask=inside, other=0.0),
    )


@triton.jit(do_not_specialize=["n_rows", "n_tokens"])
def _bilstm_kernel(
    gates,
    words,
    recurrent,
    lengths,
    out,
    n_rows,
    n_tokens,
    by_word: tl.constexpr,
    cell_states: tl.constexpr,
    n_hidden: tl.constexpr,
    rows: tl.constexpr,
    block: tl.constexpr,
):
    """One program some rows and one direction.

    gates [B, T, 2, 4, H] or [V, 2, 4, H]; words [B, T]; recurrent [2, 4, H, H] (out, in); out [B, T, 2 or 4, H], left
    alone at padding. What the input adds to the next step's gates is fetched while this step is computed.
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

    vectors: tl.constexpr = 4 if cell_states else 2
    h = tl.zeros((rows, block), tl.float32)
    c = tl.zeros((rows, block), tl.float32)
    place, on = _place(words, row_start, 0, length, direction, by_word)
    x_in, x_forget, x_new, x_out = _gates(gates, place, on, n_hidden, block)
    place, next_on = _place(words, row_start, 1, length, direction, by_word)
    for step in range(tl.max(length, axis=0)):
        y_in, y_forget, y_new, y_out = _gates(gates, place, next_on, n_hidden, block)
        place, after_on = _place(words, row_start, step + 2, length, direction, by_word)
        gate_in = tl.sigmoid(tl.dot(h, w_in, x_in, input_precision="tf32x3"))
        forget = tl.sigmoid(tl.dot(h, w_forget, x_forget, input_precision="tf32x3"))
        new = _tanh(tl.dot(h, w_new, x_new, input_precision="tf32x3"))
        gate_out = tl.sigmoid(tl.dot(h, w_out, x_out, input_precision="tf32x3"))
        stored = on[:, None] & (feature < n_hidden)[None, :]
        c = tl.where(stored, forget * c + gate_in * new, 0.0)
        h = tl.where(stored, gate_out * _tanh(c), 0.0)
        token = tl.where(direction == 0, step, length - 1 - step)
        there = out + ((row_start + token)[:, None] * vectors + direction) * n_hidden + feature[None, :]
        tl.store(there, h, mask=stored)
        if cell_states:
            tl.store(there + 2 * n_hidden, c, mask=stored)
        x_in, x_forget, x_new, x_out = y_in, y_forget, y_new, y_out
        on, next_on = next_on, after_on


def bilstm(
    gates: Tensor, lengths: Tensor, recurrent: Tensor, words: Tensor | None = None, cell_states: bool = False
) -> Tensor:
    """Run one layer in both directions.

    Args:
        gates: float32 [B, T, 2, 4, H], what the input and the biases add to the gates, forward's, then backward's, in
            torch's order i, f, g, o; with `words`, [V, 2, 4, H] of each word.
        lengths: int32 [B], tokens of each row.
        recurrent: float32 [2, 4, H, H].
        words: int [B, T].
        cell_states: behind the hidden states.
    Returns: float32 [B, T, 2 * H], or [B, T, 4 * H] with cell states; 0 at padding.
    """
    rows, n_tokens = gates.shape[:2] if words is None else words.shape
    n_hidden = recurrent.shape[-1]
    out = gates.new_zeros(rows, n_tokens, (4 if cell_states else 2) * n_hidden)
    block = max(16, triton.next_power_of_2(n_hidden))
    sizes = words is not None, cell_states, n_hidden, _ROWS, block
    grid = (triton.cdiv(rows, _ROWS), 2)
    there = lengths if words is None else words
    _bilstm_kernel[grid](gates, there, recurrent, lengths, out, rows, n_tokens, *sizes, num_warps=8)
    return out
