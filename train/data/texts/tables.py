"""Tables that hold texts and their labels, read column by column: CSV, TSV, JSONL, Parquet, and datasets' folders.

Which kind a file is says its name. A field of CSV and TSV is text, an empty one null.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from wyr_batch.checks.files import is_folder, reason_of, shown_path
from wyr_batch.errors import InputError
from wyr_batch.texts.arrow import files_of_folder

_CSV_BLOCK_BYTES = 1 << 24  # a row may not be longer
_ROWS = 8192
TABLES = ".csv, .tsv, .jsonl or .parquet, or a folder that datasets' save_to_disk wrote"


def _kind_of(path: Path) -> str:
    if is_folder(path):
        return "folder"
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"):
        raise InputError(shown_path(path), f"a file that ends in {suffix!r}", TABLES)
    return suffix


def column_kinds(path: Path) -> dict[str, bool]:
    """Return the columns of a table, and whether each holds texts."""
    schema = _schema(path)
    if schema is not None:
        kinds = {field.name: field.type for field in schema}
        if len(kinds) < len(schema.names):
            raise InputError(shown_path(path), "two columns of one name", "names that differ")
        return {name: _is_text(kind) for name, kind in kinds.items()}
    first = next(batches(path, None), {})
    return {name: any(isinstance(value, str) for value in values) for name, values in first.items()}


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _schema(path: Path) -> pa.Schema | None:
    """Return the schema of Parquet and Arrow files, None of text files."""
    kind = _kind_of(path)
    try:
        if kind == ".parquet":
            return pq.read_schema(path)
        if kind == "folder":
            with pa.OSFile(files_of_folder(str(path))[0]) as file:
                return _open_arrow(file).schema
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from None
    return None


def class_names(path: Path, column: str) -> tuple[str, ...]:
    """Return what datasets says that the labels 0, 1, 2 ... of a column are called, if it does."""
    schema = _schema(path)
    about = (schema.metadata or {}).get(b"huggingface") if schema is not None else None
    try:
        feature = json.loads(about)["info"]["features"][column] if about else {}
        names = (feature.get("feature") or feature).get("names") or ()
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()
    return tuple(map(str, names))


def _open_arrow(file: pa.NativeFile) -> Any:
    try:
        return pa.ipc.open_stream(file)
    except pa.ArrowInvalid:
        return pa.ipc.open_file(file)


def batches(path: Path, wanted: Sequence[str] | None) -> Iterator[dict[str, list[Any]]]:
    """Yield columns of a table, those that are wanted or all. Raises: InputError."""
    kind = _kind_of(path)
    try:
        if kind == ".parquet":
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(_ROWS, columns=wanted):
                    yield batch.to_pydict()
        elif kind == "folder":
            for name in files_of_folder(str(path)):
                with pa.OSFile(name) as file:
                    yield from (batch.select(wanted).to_pydict() for batch in _arrow_batches(file))
        elif kind in (".csv", ".tsv"):
            yield from _delimited(path, "," if kind == ".csv" else "\t", wanted)
        else:
            yield from _json_lines(path, wanted)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None


def _arrow_batches(file: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    reader = _open_arrow(file)
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        return (reader.get_batch(i) for i in range(reader.num_record_batches))
    return iter(reader)


def _delimited(path: Path, delimiter: str, wanted: Sequence[str] | None) -> Iterator[dict[str, list[Any]]]:
    """Yield columns of CSV and TSV, as texts; an empty field is null."""
    parsing = pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    reading = pacsv.ReadOptions(block_size=_CSV_BLOCK_BYTES)
    with pacsv.open_csv(path, read_options=reading, parse_options=parsing) as reader:
        names = reader.schema.names
    kinds = dict.fromkeys(names, pa.string())
    texts = pacsv.ConvertOptions(column_types=kinds, strings_can_be_null=True, null_values=[""], include_columns=wanted)
    with pacsv.open_csv(path, read_options=reading, parse_options=parsing, convert_options=texts) as reader:
        for batch in reader:
            yield batch.to_pydict()


def _json_lines(path: Path, wanted: Sequence[str] | None) -> Iterator[dict[str, list[Any]]]:
    """Yield columns of JSON lines; a key that a row lacks is null."""
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            try:
                content = json.loads(line)
            except (ValueError, RecursionError):
                content = None
            if not isinstance(content, dict):
                raise InputError(f"{shown_path(path)}, line {number}", repr(line[:60]), "a JSON object")
            rows.append(content)
            if len(rows) == _ROWS:
                yield _columns(rows, wanted)
                rows = []
    if rows:
        yield _columns(rows, wanted)


def _columns(rows: Sequence[dict[str, Any]], wanted: Sequence[str] | None) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in rows for name in row) if wanted is None else wanted
    return {name: [row.get(name) for row in rows] for name in names}


def _unreadable(path: Path, error: Exception) -> InputError:
    got = " ".join(str(reason_of(error) if isinstance(error, OSError) else error).split())[:160]
    return InputError(shown_path(path), f"'{got}'", TABLES)
