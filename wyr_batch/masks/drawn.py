"""Rows of a masks file as reads to draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wyr_batch.draw.read import Call, DrawnRead
from wyr_batch.errors import InputError
from wyr_batch.masks.rows import MaskRows
from wyr_batch.reads.records import shown
from wyr_batch.tokens.tokens import Int32s
from wyr_batch.tokens.windows import Float32s

PROB, MASKED, MASKED_PROB = "_prob", "_masked", "_masked_prob"


def drawn_read(rows: MaskRows, i: int, bases: str, ranks: Sequence[str], rank: str | None = None) -> DrawnRead:
    """Return row i of some rows.

    Args:
        bases: of that read; empty where they are not to be had.
        ranks: whose calls are shown; rank: the one whose mask is, None: the mask of all.
    Raises: InputError if the row's columns do not fit together.
    """
    row = rows.part(i, i + 1)

    def of(name: str) -> Any:
        return row.column(name)[0].as_py() if name in row.batch.schema.names else None

    read_id, mate, length, status = of("read_id") or "", of("mate") or 0, of("length") or 0, of("status") or ""
    n_values, n_tokens = len(of(mask_column(rank)) or ()), len(of("token_start") or ())
    values, starts = row.masks(mask_column(rank)).of(0) if n_values == n_tokens else (None, None)
    if values is None or starts is None or not _fits(values, starts, length) or len(bases) not in (0, length):
        got = f"{n_values:,} mask values and {n_tokens:,} tokens for {len(bases):,} bases"
        expected = f"a value from 0 to 1 for each token of {length:,} bp"
        raise InputError(f"row {row.first + 1:,}, read {shown(read_id)}", got, expected, "Make the masks again.")
    calls = [Call(rank, of(rank), of(rank + PROB), of(rank + MASKED), of(rank + MASKED_PROB)) for rank in ranks]
    return DrawnRead(read_id, mate, length, status, bases, values, starts, tuple(calls), rank)


def _fits(values: Float32s, starts: Int32s, length: int) -> bool:
    """True if values are those of a mask, and tokens follow one another within the read."""
    in_order = bool((np.diff(np.append(starts, length)) > 0).all()) and bool((starts >= 0).all())
    return in_order and bool(((values >= 0) & (values <= 1)).all())


def mask_column(rank: str | None) -> str:
    """Return the column of a rank's mask; None: of the mask of all."""
    return "mask" if rank is None else f"mask_{rank}"


def drawn_columns(ranks: Sequence[str], rank: str | None = None) -> list[str]:
    """Return the columns that `drawn_read` takes, where the file has them."""
    calls = [name + ending for name in ranks for ending in ("", PROB, MASKED, MASKED_PROB)]
    return ["read_id", "mate", "length", "status", mask_column(rank), "token_start", *calls]
