"""Rows of a masks file as reads to draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from wyr_batch.draw.kinds import READS, Kind
from wyr_batch.draw.read import Call, DrawnRead
from wyr_batch.draw.words import word_numbers, word_segments
from wyr_batch.errors import InputError
from wyr_batch.masks.rows import TOKEN_END, MaskRows, TokenMasks
from wyr_batch.reads.records import shown

SEGMENTS = "segments"
PROB, MASKED, MASKED_PROB = "_prob", "_masked", "_masked_prob"


def drawn_read(
    rows: MaskRows, i: int, bases: str, ranks: Sequence[str], rank: str | None = None, kind: Kind = READS
) -> DrawnRead:
    """Return row i of some rows.

    Args:
        bases: of that read; empty where they are not to be had.
        ranks: whose calls are shown; rank: the one whose mask is, None: the mask of all.
        kind: of the file.
    Raises: InputError if the row's columns do not fit together.
    """
    row = rows.part(i, i + 1)

    def of(name: str) -> Any:
        return row.column(name)[0].as_py() if name in row.batch.schema.names else None

    read_id, mate, length, status = of("read_id") or "", of("mate") or 0, of("length") or 0, of("status") or ""
    n_values, n_tokens = len(of(mask_column(rank)) or ()), len(of("token_start") or ())
    has_ends = TOKEN_END in row.batch.schema.names
    tokens = row.masks(mask_column(rank)) if n_values == n_tokens else None
    if tokens is None or not _fits(tokens, length, has_ends) or len(bases) not in (0, length):
        got = f"{n_values:,} mask values and {n_tokens:,} tokens for {len(bases):,} {kind.letters}"
        expected = f"a value from 0 to 1 for each token of {kind.length(length)}"
        raise InputError(f"row {row.first + 1:,}, {kind.row} {shown(read_id)}", got, expected, "Make the masks again.")
    calls = [Call(rank, of(rank), of(rank + PROB), of(rank + MASKED), of(rank + MASKED_PROB)) for rank in ranks]
    ends = tokens.ends if has_ends else None
    kept = None
    if ends is not None and rank is None and SEGMENTS in row.batch.schema.names:
        kept = _segments(row, tokens)
    elif ends is not None and kind.is_text:
        words = word_numbers(bases, tokens.starts, ends)
        kept = tuple((start, end) for start, end, _ in word_segments(tokens.values, tokens.starts, ends, words))
    return DrawnRead(
        read_id, mate, length, status, bases, tokens.values, tokens.starts, tuple(calls), rank, ends, kept, kind
    )


def _fits(tokens: TokenMasks, length: int, has_ends: bool) -> bool:
    """True if values are those of a mask, and tokens follow one another within the read."""
    steps = np.diff(np.append(tokens.starts, length))
    in_order = bool((steps >= 0).all() if has_ends else (steps > 0).all()) and bool((tokens.starts >= 0).all())
    return in_order and bool(((tokens.values >= 0) & (tokens.values <= 1)).all())


def _segments(row: MaskRows, tokens: TokenMasks) -> tuple[tuple[int, int], ...]:
    """Return the segments of a row as the file has them. Raises: InputError unless they begin and end with tokens."""
    found = row.segments()
    in_order = bool((found.start < found.end).all()) and bool((found.end[:-1] <= found.start[1:]).all())
    if not (in_order and np.isin(found.start, tokens.starts).all() and np.isin(found.end, tokens.ends).all()):
        got = "segments that begin or end within a token"
        raise InputError(
            f"row {row.first + 1:,}, column segments", got, "segments of whole tokens", "Make the masks again."
        )
    return tuple(zip(found.start.tolist(), found.end.tolist(), strict=True))


def mask_column(rank: str | None) -> str:
    """Return the column of a rank's mask; None: of the mask of all."""
    return "mask" if rank is None else f"mask_{rank}"


def drawn_columns(ranks: Sequence[str], rank: str | None = None) -> list[str]:
    """Return the columns that `drawn_read` takes, where the file has them."""
    calls = [name + ending for name in ranks for ending in ("", PROB, MASKED, MASKED_PROB)]
    return ["read_id", "mate", "length", "status", mask_column(rank), "token_start", SEGMENTS, *calls]
