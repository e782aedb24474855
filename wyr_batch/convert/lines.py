"""Columns of a masks file as columns of text lines, without a Python object a read or token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from wyr_batch.errors import InputError
from wyr_batch.masks.file import MaskFile
from wyr_batch.masks.rows import MaskRows
from wyr_batch.reads.records import offsets_from, shown

MOST_TOKENS = 500_000
_BREAKS_FIELDS = r"[\x00-\x1f\x7f]"


def pieces(masks: MaskFile, columns: Sequence[str]) -> Iterator[MaskRows]:
    """Yield the rows of a masks file in order, each time so few that their text is small; a long read is one alone."""
    for rows in masks.rows(list(dict.fromkeys([*columns, "n_tokens"]))):
        yield from cut_rows(rows, np.nan_to_num(rows.numbers("n_tokens").astype(np.float64)), MOST_TOKENS)


def cut_rows(rows: MaskRows, sizes: npt.NDArray[Any], most: int) -> Iterator[MaskRows]:
    """Yield rows in pieces whose sizes add up to `most` at most, but of one row at least; sizes: numbers [n]."""
    sums = np.cumsum(sizes)
    start = 0
    while start < len(rows):
        before = sums[start - 1] if start else 0
        stop = max(int(np.searchsorted(sums, before + most, "right")), start + 1)
        yield rows.part(start, stop)
        start = stop


def join(*columns: pa.Array | str, sep: str = "\t") -> pa.Array:
    """Return one text a row: the columns with `sep` between them; null counts as empty, a str stands in every row."""
    texts = [column if isinstance(column, str) else column.cast(pa.string()) for column in columns]
    return pc.binary_join_element_wise(*texts, sep, null_handling="replace", null_replacement="")


def join_lists(texts: pa.Array, offsets: npt.NDArray[np.int64], sep: str) -> pa.Array:
    """Return one text a list: its texts with `sep` between them; lists are offsets[i] to offsets[i + 1]."""
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), texts), sep)


@cache
def _decimal_texts(decimals: int) -> pa.Array:
    most = 10**decimals
    return pa.array([f"{i / most:.{decimals}f}".rstrip("0").rstrip(".") for i in range(most + 1)], pa.string())


def decimal_texts(values: npt.NDArray[Any], decimals: int) -> pa.Array:
    """Return numbers in [0, 1] as text, rounded, without zeros at the end; nan as null."""
    absent = np.isnan(values)
    places = np.rint(np.where(absent, 0, values).astype(np.float64) * 10**decimals).astype(np.int32)
    return _decimal_texts(decimals).take(pa.array(places, mask=absent))


def runs(
    values: npt.NDArray[Any], offsets: npt.NDArray[np.int64], breaks: npt.NDArray[np.bool_] | None = None
) -> tuple[npt.NDArray[np.int64], ...]:
    """Return where runs of equal values within one list start and end, and where each list's runs do.

    Args:
        values: [N]; offsets: int64 [n + 1], list i is offsets[i] to offsets[i + 1].
        breaks: bool [N], where a run begins whatever its value is; None: nowhere.
    Returns: first and end, int64 [M], half-open; offsets of the runs, int64 [n + 1].

    >>> first, end, lists = runs(np.array([5, 5, 7, 7, 7]), np.array([0, 3, 3, 5]))
    >>> first.tolist(), end.tolist(), lists.tolist()
    ([0, 2, 3], [2, 3, 5], [0, 2, 2, 3])
    """
    begins = np.ones(len(values), bool)
    begins[1:] = values[1:] != values[:-1]
    if breaks is not None:
        begins |= breaks
    begins[offsets[:-1][offsets[:-1] < len(values)]] = True
    first = np.flatnonzero(begins)
    return first, np.append(first[1:], len(values))[: len(first)], np.searchsorted(first, offsets)


def read_names(rows: MaskRows, masks: MaskFile) -> pa.Array:
    """Return the name of each row, mates told apart: `read_id`, or `read_id/1` and `read_id/2`.

    Raises: InputError for a name with white space, which no run writes.
    """
    ids = field_texts(rows, "read_id", masks)
    odd = pc.index(pc.match_substring_regex(ids, r"^$|\s"), True).as_py()
    if odd >= 0:
        raise _odd_text(ids, odd, "read_id", "a name without white space", rows, masks)
    mates = rows.numbers("mate").astype(np.int64)
    return ids if not mates.any() else join(ids, pa.array(["", "/1", "/2"]).take(pa.array(mates)), sep="")


def field_texts(rows: MaskRows, column: str, masks: MaskFile) -> pa.Array:
    """Return a text column with null as an empty text. Raises: InputError for one that would break a line or field."""
    values = rows.column(column)
    texts = pc.fill_null(values.cast(pa.string()), "")
    kinds = values.dictionary if pa.types.is_dictionary(values.type) else texts
    if pc.any(pc.match_substring_regex(kinds, _BREAKS_FIELDS)).as_py():
        odd = pc.index(pc.match_substring_regex(texts, _BREAKS_FIELDS), True).as_py()
        if odd >= 0:
            raise _odd_text(texts, odd, column, "text without tabs and line ends", rows, masks)
    return texts


def _odd_text(texts: pa.Array, i: int, column: str, expected: str, rows: MaskRows, masks: MaskFile) -> InputError:
    where = f"{masks.shown}, column {column}, row {rows.first + i + 1:,}"
    return InputError(where, shown(texts[i].as_py()), expected, "Change it in the masks file.")


def copies(column: pa.Array, offsets: npt.NDArray[np.int64]) -> pa.Array:
    """Return a column with each row as many times as its list is long: for one line an item of a list."""
    return column.take(pa.array(np.repeat(np.arange(len(column)), np.diff(offsets))))


def slices(data: npt.NDArray[np.uint8], starts: npt.NDArray[Any], ends: npt.NDArray[Any]) -> pa.Array:
    """Return slices of some bytes, which may overlap and be in any order, as texts.

    Args:
        data: uint8 [N], ASCII; starts, ends: int64 [M], half-open.
    """
    offsets = offsets_from(ends - starts)
    places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], ends - starts)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data[places])]
    return pa.LargeStringArray.from_buffers(len(starts), buffers[1], buffers[2])
