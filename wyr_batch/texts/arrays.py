"""Columns of Arrow types as texts."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.types as types

from wyr_batch.errors import InputError
from wyr_batch.reads.records import shown
from wyr_batch.texts.choose import Chosen, TextColumns, choose_columns
from wyr_batch.texts.rows import BATCH_ROWS, TextRows

FAILURES = (OSError, pa.ArrowException)  # what Arrow raises for damaged data


def choose_of(asked: TextColumns, schema: pa.Schema, where: str) -> Chosen:
    """Return which columns of a table to read.

    Args:
        where: the file, for messages.
    Raises: InputError if they are not there, or of types that are no texts.
    """
    kinds = [(field.name, _value_type(field.type)) for field in schema]
    chosen = choose_columns(asked, [(name, _is_string(kind)) for name, kind in kinds], where)
    type_of = dict(kinds)
    for name in (chosen.text, chosen.pair):
        if name is not None and not (_is_string(type_of[name]) or types.is_null(type_of[name])):
            advice = "Name another one: --text-column, --pair-column."
            raise InputError(where, f"the column {shown(name)} of type {type_of[name]}", "one of strings", advice)
    if chosen.id is not None:
        kind = type_of[chosen.id]
        if not (_is_string(kind) or types.is_primitive(kind) or types.is_null(kind)):
            got = f"the column {shown(chosen.id)} of type {kind}"
            raise InputError(where, got, "one of strings or numbers", "Name another one: --id-column.")
    return chosen


def rows_of(batch: pa.RecordBatch, chosen: Chosen) -> Iterator[TextRows]:
    """Yield the texts of a batch, some thousand rows at a time."""
    for start in range(0, len(batch), BATCH_ROWS):
        part = batch.slice(start, BATCH_ROWS)
        ids = None if chosen.id is None else _strings(part.column(chosen.id), pa.string()).fill_null("")
        seconds = None if chosen.pair is None else _strings(part.column(chosen.pair), pa.large_string())
        yield TextRows(_strings(part.column(chosen.text), pa.large_string()), seconds, ids)


def _strings(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values.cast(kind)


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if types.is_dictionary(kind) else kind


def _is_string(kind: pa.DataType) -> bool:
    return types.is_string(kind) or types.is_large_string(kind) or str(kind) == "string_view"
