"""Rows of a masks file as reads to draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wyr_batch.draw.read import Call, DrawnRead
from wyr_batch.masks.rows import MaskRows

PROB, MASKED, MASKED_PROB = "_prob", "_masked", "_masked_prob"


def drawn_read(rows: MaskRows, i: int, bases: str, ranks: Sequence[str]) -> DrawnRead:
    """Return row i of some rows; `bases`: of that read, empty where they are not to be had."""
    row = rows.part(i, i + 1)
    values, starts = row.masks().of(0)

    def of(name: str) -> Any:
        return row.column(name)[0].as_py() if name in row.batch.schema.names else None

    calls = [Call(rank, of(rank), of(rank + PROB), of(rank + MASKED), of(rank + MASKED_PROB)) for rank in ranks]
    read_id, mate, length, status = (of(name) for name in ("read_id", "mate", "length", "status"))
    return DrawnRead(read_id, mate, length, status, bases, values, starts, tuple(calls))
