"""A masks file: a Parquet file that `run` wrote, or a folder of its parts; also what other tools made of one.

Whoever filters or sorts a masks file with DuckDB or polars still has its columns. They are all that is needed; what the
footer says beside (inputs, bundle, device) is shown where it is there. What the rows are (reads, proteins, texts) is in
the footer as well; without it, their letters tell.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wyr_batch.checks.fields import Fields, parse_json
from wyr_batch.checks.files import is_folder, kind_of, look_at, reason_of, shown_path
from wyr_batch.draw.kinds import KINDS, PROTEINS, READS, TEXTS, Kind
from wyr_batch.errors import InputError
from wyr_batch.masks.rows import TOKEN_END, MaskRows
from wyr_batch.rows.folder import parts_in
from wyr_batch.rows.manifest import run_from

BATCH_ROWS = 4096
_ADVICE = "Name a Parquet file that wyr-batch run wrote, or a folder of its parts."
_SHOWN_CHARACTERS = 100
_SEQUENCE, _LOOKED_AT = "sequence", 100
_NUCLEOTIDES, _RESIDUES = frozenset("ACGTUNRYSWKMBDHV-.*"), frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ-.*")
_LISTS = ("mask", "token_start", "segments")
_NEEDED = ("read_id", "mate", "length", "n_tokens", "status", *_LISTS, "mask_mean")


@dataclass(frozen=True)
class MaskFile:
    """Columns and description of a masks file; `rows` streams it.

    Attributes:
        path: as the user named it.
        parts: the Parquet files, in row order.
        n_rows: of all parts.
        schema: of the columns.
        ranks: names of the ranks, in the columns' order.
        footer: what `run` did (bundle, device, inputs, ...); empty in a file that another tool wrote.
        run: inputs and options, as a run is resumed by; empty where the footer has none.
        counts: reads, statuses and failures, where the footer has them.
        rates: how fast the run was, and when it ended, where the footer has them.
        kind: whether its rows are reads, proteins or texts.
    """

    path: Path
    parts: tuple[Path, ...]
    n_rows: int
    schema: pa.Schema
    ranks: tuple[str, ...]
    footer: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    rates: dict[str, Any] = field(default_factory=dict)
    kind: Kind = READS

    @property
    def shown(self) -> str:
        return shown_path(self.path)

    def __contains__(self, column: str) -> bool:
        return column in self.schema.names

    def rows(self, columns: Sequence[str] | None = None, near: Sequence[int] | None = None) -> Iterator[MaskRows]:
        """Yield the rows in order, some thousand at a time.

        Args:
            columns: only these, and with token_start the ends of the tokens, where the file has them.
            near: only row groups that hold one of these rows, by their numbers in ascending order.
        Raises: InputError.
        """
        first = 0
        if columns is not None and "token_start" in columns and TOKEN_END in self:
            columns = list(dict.fromkeys([*columns, TOKEN_END, "length"]))
        for part in self.parts:
            with ExitStack() as stack:
                try:
                    file = stack.enter_context(pq.ParquetFile(stack.enter_context(part.open("rb"))))
                    for group in range(file.num_row_groups):
                        end = first + file.metadata.row_group(group).num_rows
                        if near is None or bisect_left(near, first) < bisect_left(near, end):
                            for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns):
                                yield MaskRows(batch, first)
                                first += batch.num_rows
                        first = end
                except (OSError, pa.ArrowException) as error:
                    got = f"'{reason_of(error)[:_SHOWN_CHARACTERS]}' after {first:,} rows"
                    raise InputError(shown_path(part), got, "an undamaged Parquet file", "Make it again.") from None


def open_masks(path: Path) -> MaskFile:
    """Look at a masks file and check its columns.

    Raises: InputError naming the file, and the column that is missing or of another type.
    """
    parts = tuple(parts_in(path)) if is_folder(path) else (path,)
    if not parts:
        raise InputError(shown_path(path), "a folder without part-000000.parquet", "masks", _ADVICE)
    schemas, n_rows = [], 0
    metadata: dict[bytes, bytes] = {}
    for part in parts:
        schema, n, footer = _look_into(part)
        schemas.append(schema)
        n_rows += n
        metadata |= footer
    if odd := next((i for i, schema in enumerate(schemas) if not schema.equals(schemas[0])), None):
        raise InputError(shown_path(parts[odd]), "other columns", f"those of {shown_path(parts[0])}", _ADVICE)
    _check_columns(schemas[0], path)
    about = _object(metadata, "wyr", path)
    run = _object(metadata, "wyr_run", path)
    if run:
        run_from(Fields(run, f"{shown_path(path)}, footer wyr_run", InputError, _ADVICE))
    counts, rates = (_object(metadata, key, path) for key in ("wyr_counts", "wyr_rates"))
    kind = _kind(about, schemas[0], parts, path)
    return MaskFile(path, parts, n_rows, schemas[0], _ranks(schemas[0]), about, run, counts, rates, kind)


def _look_into(path: Path) -> tuple[pa.Schema, int, dict[bytes, bytes]]:
    status = look_at(path)
    kind = "nothing there" if status is None else kind_of(status)
    if kind != "a file":
        raise InputError(shown_path(path), kind, "masks", _ADVICE)
    try:
        # Not by name: Arrow takes no name that is not UTF-8.
        with path.open("rb") as source, pq.ParquetFile(source) as file:
            return file.schema_arrow.remove_metadata(), file.metadata.num_rows, file.metadata.metadata or {}
    except (OSError, ValueError, pa.ArrowException) as error:
        got = f"'{reason_of(error)[:_SHOWN_CHARACTERS]}'"
        raise InputError(shown_path(path), got, "masks", _ADVICE) from None


def _check_columns(schema: pa.Schema, path: Path) -> None:
    """Raise InputError unless the columns are those of a masks file."""
    for name in _NEEDED:
        if name not in schema.names:
            raise InputError(shown_path(path), f"no column {name!r}", "masks", _ADVICE)
    for name in [*_LISTS, *[TOKEN_END] * (TOKEN_END in schema.names)]:
        kind = schema.field(name).type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            raise InputError(f"{shown_path(path)}, column {name}", kind, "lists", _ADVICE)
    if not _ranks(schema):
        raise InputError(shown_path(path), "no columns of a rank", "RANK and RANK_prob", _ADVICE)


def _kind(about: dict[str, Any], schema: pa.Schema, parts: Sequence[Path], path: Path) -> Kind:
    """Return what the rows are; where the footer is lost, by the letters of the first sequences.

    Raises: InputError for what is neither reads nor proteins nor texts.
    """
    if about or TOKEN_END not in schema.names:
        name = about.get("input", READS.name)
        if name not in KINDS:
            raise InputError(f"{shown_path(path)}, footer wyr, input", name, f"one of {', '.join(KINDS)}", _ADVICE)
        return KINDS[name]
    if _SEQUENCE not in schema.names:
        return READS
    with parts[0].open("rb") as source, pq.ParquetFile(source) as file:
        first = next(file.iter_batches(_LOOKED_AT, columns=[_SEQUENCE]), None)
    letters = set("".join(text or "" for text in first[0].to_pylist())) if first is not None else set()
    if letters <= _NUCLEOTIDES:
        return READS
    return PROTEINS if letters <= _RESIDUES else TEXTS


def _ranks(schema: pa.Schema) -> tuple[str, ...]:
    """Return the names of the ranks: those that have a probability and no other name before it."""
    names = set(schema.names)
    has_call = [name for name in schema.names if f"{name}_prob" in names]
    return tuple(name for name in has_call if not (name.endswith("_masked") and name[: -len("_masked")] in names))


def _object(metadata: dict[bytes, bytes], key: str, path: Path) -> dict[str, Any]:
    """Return one JSON object of the footer, empty if it is not there. Raises: InputError if it is something else."""
    if key.encode() not in metadata:
        return {}
    where = f"{shown_path(path)}, footer {key}"
    try:
        content = parse_json(metadata[key.encode()])
    except ValueError as error:
        raise InputError(where, error, "JSON", _ADVICE) from None
    return Fields(content, where, InputError, _ADVICE).content
