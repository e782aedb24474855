"""JSON lines: an object a line (jsonlines.org), read line by line; blank lines are no rows."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from typing import Any

from wyr_batch.errors import InputError
from wyr_batch.reads.records import shown
from wyr_batch.texts.choose import TextColumns, choose_columns
from wyr_batch.texts.lines import Lines
from wyr_batch.texts.rows import BATCH_ROWS, BadRow, Row, TextRows, batches

_ADVICE = "Write one JSON object a line; of a JSON array: jq -c '.[]' FILE > FILE.jsonl"


class JsonLines:
    """An open table; see `PlainText.rows`. A key that a row lacks is null there."""

    def __init__(self, lines: Lines, asked: TextColumns, where: str) -> None:
        """
        Args:
            where: the file, for messages.
        Raises: InputError if the first row is damaged, or the first ones lack the columns.
        """
        self._objects = _objects(lines)
        self._head: list[tuple[int, dict[str, Any]]] = []  # rows that were looked at
        self._damage: BadRow | None = None
        try:
            while len(self._head) < BATCH_ROWS and (row := next(self._objects, None)) is not None:
                self._head.append(row)
        except BadRow as bad:
            if not self._head:
                raise InputError(f"{where}, {bad.place}", bad.got, bad.expected, bad.advice) from None
            self._damage = bad
        values: dict[str, set[type]] = {}
        for _, content in self._head:
            for name, value in content.items():
                values.setdefault(name, set()).add(type(value))
        columns = {name: kinds - {type(None)} == {str} for name, kinds in values.items()}
        self._chosen = choose_columns(asked, columns, where) if self._head else None

    def rows(self) -> Generator[TextRows, None, None]:
        """Yield the rows. Raises: BadRow after the last good one."""
        if self._chosen:
            yield from batches(self._all_rows(), self._chosen.pair is not None, self._chosen.id is not None)

    def _all_rows(self) -> Iterator[Row]:
        assert self._chosen is not None
        text, pair, name = self._chosen
        for line, content in self._all_objects():
            first = _text(content, text, line)
            second = None if pair is None else _text(content, pair, line)
            yield Row(first, second, "" if name is None else _name(content, name, line))

    def _all_objects(self) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from self._head
        self._head.clear()
        if self._damage:
            raise self._damage
        yield from self._objects


def _objects(lines: Lines) -> Generator[tuple[int, dict[str, Any]], None, None]:
    """Yield the line number and the content of each row."""
    number = 0
    for block in lines.blocks():
        for line in block:
            number += 1
            if not line or line.isspace():
                continue
            try:
                content = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise BadRow(f"line {number}", f"{shown(line)} ({error})", "a JSON object", _ADVICE) from None
            if not isinstance(content, dict):
                raise BadRow(f"line {number}", shown(line), "a JSON object", _ADVICE)
            yield number, content


def _text(content: dict[str, Any], name: str, line: int) -> str | None:
    value = content.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise BadRow(f"line {line}", f"{shown(json.dumps(value))} as {shown(name)}", "a string or null")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadRow(f"line {line}", f"half of a surrogate pair in {shown(value)}", "Unicode text") from None
    return value


def _name(content: dict[str, Any], name: str, line: int) -> str:
    value = content.get(name)
    if isinstance(value, dict | list):
        raise BadRow(f"line {line}", f"{shown(json.dumps(value))} as {shown(name)}", "a string or a number")
    if value is None or isinstance(value, str):
        return _text(content, name, line) or ""
    return json.dumps(value)
