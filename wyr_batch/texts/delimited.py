"""CSV and TSV, read row by row with Python's csv: a row may be of any length, and damage is known to the row.

The first row names the columns. Fields may be quoted, and then hold line breaks; a quote in them is doubled (RFC 4180).
A quote inside a field that does not begin with one stands for itself.
"""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterator
from itertools import chain

from wyr_batch.errors import InputError
from wyr_batch.texts.choose import TextColumns, choose_columns
from wyr_batch.texts.lines import Lines
from wyr_batch.texts.rows import BATCH_ROWS, BadRow, Row, TextRows, batches

_MOST_CHARACTERS = 2**31 - 1
_QUOTES = "Quote fields that hold quotes, and double those, or save the table anew with another tool."


class Delimited:
    """An open table; see `PlainText.rows`."""

    def __init__(self, lines: Lines, asked: TextColumns, delimiter: str | None, where: str) -> None:
        """
        Args:
            delimiter: None takes that of the first line: a comma, else a semicolon, else a tab.
            where: the file, for messages.
        Raises: InputError if the first row is damaged, or lacks the columns.
        """
        csv.field_size_limit(max(csv.field_size_limit(), _MOST_CHARACTERS))
        text = (f"{line}\n" for block in lines.blocks() for line in block)
        self._head: list[list[str]] = []  # rows that were looked at
        self._damage: BadRow | None = None
        try:
            start = _first_lines(text)
            delimiter = delimiter or next((each for each in ",;\t" if each in start[-1]), ",")
            self._rows = self._fields(chain(start, text), delimiter)
            header = next(self._rows, [])
        except BadRow as bad:
            raise InputError(f"{where}, {bad.place}", bad.got, bad.expected, bad.advice) from None
        try:
            while len(self._head) < BATCH_ROWS and (row := next(self._rows, None)) is not None:
                self._head.append(row)
        except BadRow as bad:
            self._damage = bad
        self._asked = asked
        chosen = choose_columns(asked, [(name, self._holds_strings(i)) for i, name in enumerate(header)], where)
        self._places = [None if name is None else header.index(name) for name in chosen]

    def _holds_strings(self, column: int) -> bool:
        """True if a value that was looked at is no number, or there is no other column."""
        return any(len(row) == 1 or not _is_number(row[column]) for row in self._head)

    def _fields(self, text: Iterator[str], delimiter: str) -> Generator[list[str], None, None]:
        """Yield the fields of each row, the first one's too; blank lines are rows in tables of one column only."""
        reader = csv.reader(text, delimiter=delimiter, strict=True)
        n_rows = n_columns = 0
        while True:
            line = reader.line_num + 1
            place = f"row {n_rows}, line {line}" if n_rows else f"line {line}"
            try:
                fields = next(reader, None)
            except csv.Error as error:
                place += f" to {reader.line_num}" if reader.line_num > line else ""
                raise BadRow(place, f"fields that cannot be told apart ({error})", "whole ones", _QUOTES) from None
            except BadRow as bad:  # of the lines
                place = f"row {n_rows}, {bad.place}" if n_rows else bad.place
                raise BadRow(place, bad.got, bad.expected, bad.advice) from None
            if fields is None:
                return
            n_columns = n_columns or len(fields)
            if not fields:
                if n_columns != 1:
                    continue
                fields = [""]
            if len(fields) != n_columns:
                raise BadRow(place, f"{len(fields)} fields", f"{n_columns}, as the first row has", _QUOTES)
            n_rows += 1
            yield fields

    def rows(self) -> Generator[TextRows, None, None]:
        """Yield the rows. Raises: BadRow after the last good one."""
        text, pair, name = self._places
        assert text is not None
        found = (
            Row(row[text], None if pair is None else row[pair], "" if name is None else row[name])
            for row in self._all_fields()
        )
        yield from batches(found, pair is not None, name is not None)

    def _all_fields(self) -> Iterator[list[str]]:
        yield from self._head
        self._head.clear()
        if self._damage:
            raise self._damage
        yield from self._rows


def _first_lines(text: Iterator[str]) -> list[str]:
    """Return the lines up to the first that is not blank."""
    found = [""]
    for line in text:
        found.append(line)
        if not line.isspace():
            break
    return found[1:] or found


def _is_number(value: str) -> bool:
    try:
        float(value or 0)
    except ValueError:
        return value.lower() in ("true", "false")
    return True
