"""Texts as they come from a table, checked and put into the columns of reads."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wyr_batch.reads.chunk import BETWEEN_PAIR
from wyr_batch.reads.records import Columns, shown

BATCH_ROWS, _BATCH_CHARACTERS = 2048, 1_000_000
CHECK = "Check the step that wrote it."


class BadRow(Exception):
    """The first row that is not good: `place` is its row or line, the rest as in an InputError."""

    def __init__(self, place: str, got: str, expected: str, advice: str = CHECK) -> None:
        super().__init__(place, got)
        self.place, self.got, self.expected, self.advice = place, got, expected, advice


@dataclass(frozen=True, slots=True)
class TextRows:
    """Consecutive rows of a table.

    Attributes:
        texts: pa.large_string() [n]; null is an empty row.
        seconds: pa.large_string() [n], the second texts of pairs; null is none. None: there are no pairs.
        ids: pa.string() [n]; None: rows are called by their numbers.
    """

    texts: pa.LargeStringArray
    seconds: pa.LargeStringArray | None = None
    ids: pa.StringArray | None = None

    def part(self, start: int, stop: int) -> TextRows:
        """Return rows start to stop of these."""
        seconds = None if self.seconds is None else self.seconds[start:stop]
        return TextRows(self.texts[start:stop], seconds, None if self.ids is None else self.ids[start:stop])


class Row(NamedTuple):
    """One row of a format that is read row by row; as in `TextRows`."""

    text: str | None
    second: str | None
    id: str


def batches(rows: Iterable[Row], pairs: bool, ids: bool) -> Generator[TextRows, None, None]:
    """Yield rows as columns, some thousand at a time; what `rows` raises is raised after those before it.

    Args:
        pairs, ids: these columns are asked for.
    """
    waiting: list[Row] = []
    n_characters = 0
    bad: BadRow | None = None
    rows = iter(rows)
    while True:
        try:
            row = next(rows, None)
        except BadRow as error:
            row, bad = None, error
        if row is not None:
            waiting.append(row)
            n_characters += len(row.text or "") + len(row.second or "")
        if waiting and (row is None or len(waiting) == BATCH_ROWS or n_characters > _BATCH_CHARACTERS):
            texts, seconds, names = zip(*waiting, strict=True)
            yield TextRows(
                pa.array(texts, pa.large_string()),
                pa.array(seconds, pa.large_string()) if pairs else None,
                pa.array(names, pa.string()) if ids else None,
            )
            waiting, n_characters = [], 0
        if bad:
            raise bad
        if row is None:
            return


def columns_from_rows(rows: TextRows, first: int) -> Columns:
    """Return texts as columns of reads; a pair is its first text, a line break and its second.

    A row without a letter in either text is empty.

    Args:
        first: number of the first row in its file, from 1.
    """
    texts = rows.texts.fill_null("")
    second = None
    if rows.seconds is not None:
        both = pc.binary_join_element_wise(texts, rows.seconds, pa.scalar(BETWEEN_PAIR, pa.large_string()))
        has_letters = pc.greater(pc.add(pc.binary_length(texts), pc.binary_length(rows.seconds)), 0)
        is_pair = pc.fill_null(has_letters, False).to_numpy(zero_copy_only=False)
        second = np.where(is_pair, pc.binary_length(texts).to_numpy() + len(BETWEEN_PAIR), -1).astype(np.int64)
        texts = pc.if_else(pa.array(is_pair), both, texts)
    offsets = np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1]
    bases = np.frombuffer(texts.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    letters = pc.utf8_length(texts).to_numpy().astype(np.int64, copy=False)
    ids = rows.ids
    if ids is None:
        ids = pa.array(np.arange(first, first + len(texts))).cast(pa.string())
    return Columns(ids, np.zeros(len(texts), np.int8), bases, np.diff(offsets), None, letters, second)


def first_bad(values: pa.Array) -> tuple[int, str] | None:
    """Return the first value that is no text, and what it is instead: bytes that are not UTF-8, or with a NUL.

    Args:
        values: pa.large_string() or pa.string() [n].
    """
    odd = len(values), ""
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        kind = pa.large_binary() if values.type == pa.large_string() else pa.binary()
        for i, value in enumerate(values.cast(kind)):
            if problem := _not_utf8(value.as_py() or b""):
                odd = i, problem
                break
    has_nul = pc.fill_null(pc.match_substring(values[: odd[0]].cast(pa.large_binary()), b"\0"), False)
    at = pc.index(has_nul, True).as_py()
    if at >= 0:
        odd = at, f"a NUL character in {shown(values[at].as_py())}"
    return odd if odd[1] else None


def _not_utf8(value: bytes) -> str:
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return f"byte 0x{value[error.start]:02x}, which is not UTF-8, in {shown(value)}"
    return ""
