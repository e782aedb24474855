"""Rows of a masks file as flat arrays: the inverse of rows/columns.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wyr_batch.errors import InputError
from wyr_batch.rows.segments import Segments
from wyr_batch.tokens.tokens import Int32s, Int64s
from wyr_batch.tokens.windows import Float32s

TOKEN_END = "token_end"


@dataclass(frozen=True, slots=True)
class TokenMasks:
    """Mask values of consecutive rows; a row without a mask has no tokens.

    Attributes:
        values: float32 [N], in [0, 1], whatever type the file has.
        starts: int32 [N], first base of each token within its read.
        ends: int32 [N], where it ends: as the file says, else at the next token of its read, or at the read's end.
        offsets: int64 [n + 1], tokens of row i are offsets[i] to offsets[i + 1].
    """

    values: Float32s
    starts: Int32s
    ends: Int32s
    offsets: Int64s

    def of(self, i: int) -> tuple[Float32s, Int32s]:
        """Return values and starts of row i, each [T]."""
        part = slice(int(self.offsets[i]), int(self.offsets[i + 1]))
        return self.values[part], self.starts[part]


class MaskRows:
    """Consecutive rows of a masks file.

    Attributes:
        batch: the columns as they are in the file.
        first: number of the first row in the file, from 0.
    """

    def __init__(self, batch: pa.RecordBatch, first: int) -> None:
        self.batch, self.first = batch, first

    def __len__(self) -> int:
        return int(self.batch.num_rows)

    def part(self, start: int, stop: int) -> MaskRows:
        """Return rows start to stop of these."""
        return MaskRows(self.batch.slice(start, stop - start), self.first + start)

    def column(self, name: str) -> pa.Array:
        """Return a column."""
        return self.batch.column(name)

    def texts(self, name: str) -> list[str | None]:
        """Return a column of text, null as None."""
        values: list[str | None] = self.column(name).to_pylist()
        return values

    def numbers(self, name: str) -> npt.NDArray[Any]:
        """Return a column of numbers; null as nan, so whole numbers with nulls become float64."""
        values: npt.NDArray[Any] = self.column(name).to_numpy(zero_copy_only=False)
        return values

    @property
    def lengths(self) -> Int64s:
        """Bases of each read, int64 [n]."""
        return self.numbers("length").astype(np.int64)

    def masks(self, name: str = "mask") -> TokenMasks:
        """Return the mask values of all tokens; `name`: another column of masks, as mask_RANK."""
        flat, offsets = flat_lists(self.column(name))
        values = flat.to_numpy(zero_copy_only=False)
        values = values / np.float32(255) if values.dtype == np.uint8 else values.astype(np.float32)
        starts, _ = flat_lists(self.column("token_start"))
        places = starts.to_numpy(zero_copy_only=False)
        if TOKEN_END in self.batch.schema.names:
            self._check_ends()
            return TokenMasks(
                values, places, flat_lists(self.column(TOKEN_END))[0].to_numpy(zero_copy_only=False), offsets
            )
        ends = np.empty_like(places)
        ends[:-1] = places[1:]
        has_any = np.diff(offsets) > 0
        ends[offsets[1:][has_any] - 1] = self.lengths[has_any]
        return TokenMasks(values, places, ends, offsets)

    def _check_ends(self) -> None:
        """Raise InputError unless each token has an end, does not begin before the last one's, and lies in its read."""
        starts, offsets = flat_lists(self.column("token_start"))
        ends, others = flat_lists(self.column(TOKEN_END))
        same = np.diff(offsets) == np.diff(others)
        if same.all():
            first, last = (np.asarray(values.to_numpy(zero_copy_only=False)) for values in (starts, ends))
            most = np.append(first[1:], 0)
            has_any = np.diff(offsets) > 0
            most[offsets[1:][has_any] - 1] = self.lengths[has_any]
            good = (first >= 0) & (first <= last) & (last <= most)
            if good.all():
                return
            i = int(np.searchsorted(offsets, int(np.argmin(good)), side="right")) - 1
        else:
            i = int(np.argmin(same))
        n_ends, n_starts = others[i + 1] - others[i], offsets[i + 1] - offsets[i]
        got = f"{n_ends:,} ends that do not fit the {n_starts:,} in token_start"
        where = f"row {self.first + i + 1:,}, column {TOKEN_END}"
        raise InputError(where, got, "tokens one after the other", "Make the masks again.")

    def segments(self) -> Segments:
        """Return the segments; a row without a mask has none."""
        flat, offsets = flat_lists(self.column("segments"))
        start, end, mean = (flat.field(name).to_numpy(zero_copy_only=False) for name in ("start", "end", "mean"))
        return Segments(start, end, mean, offsets)


def flat_lists(lists: pa.ListArray) -> tuple[pa.Array, Int64s]:
    """Return the values of all lists, and where each list's begin, int64 [n + 1]; null is a list of none."""
    offsets = np.zeros(len(lists) + 1, np.int64)
    counts = pc.fill_null(pc.list_value_length(lists), 0)
    np.cumsum(counts.to_numpy(zero_copy_only=False), out=offsets[1:])
    return lists.flatten(), offsets
