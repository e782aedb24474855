"""Rows to a Parquet file that appears under its name only when it is whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wyr_batch.errors import OutputError

ROW_GROUP_ROWS = 32_768


class MaskWriter:
    """Collects record batches into row groups and writes them to `<output>.partial`; `commit` renames it.

    Left without `commit`, the partial file is closed all the same, so the rows written so far can be read from it.
    """

    def __init__(self, output: Path, schema: pa.Schema, metadata: Mapping[str, Any], overwrite: bool = False) -> None:
        """
        Args:
            metadata: goes into the file's footer as JSON under the key `wyr`.
        Raises: OutputError if the output exists (without overwrite) or cannot be written.
        """
        self.output = output
        self.partial = output.with_name(output.name + ".partial")
        self.n_rows = 0
        self._pending: list[pa.RecordBatch] = []
        self._n_pending = 0
        check_output(output, overwrite)
        schema = schema.with_metadata({"wyr": json.dumps(metadata)})
        delta = [f"{f.name}.list.element" for f in schema if f.name == "token_start"]
        no_dictionary = [f.name for f in schema if pa.types.is_dictionary(f.type)]
        try:
            self._writer = pq.ParquetWriter(
                self.partial,
                schema,
                compression="zstd",
                use_dictionary=no_dictionary,
                column_encoding=dict.fromkeys(delta, "DELTA_BINARY_PACKED"),
            )
        except OSError as error:
            raise _write_error(self.output, error) from None
        self.schema = schema

    def write(self, batch: pa.RecordBatch) -> None:
        """Take the rows of one batch; they reach the disk by row groups. Raises: OutputError."""
        self._pending.append(batch)
        self._n_pending += batch.num_rows
        if self._n_pending >= ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._n_pending:
            return
        table = pa.Table.from_batches(self._pending).replace_schema_metadata(self.schema.metadata)
        try:
            self._writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        except OSError as error:
            raise _write_error(self.output, error) from None
        self.n_rows += self._n_pending
        self._pending, self._n_pending = [], 0

    def close(self) -> None:
        """Write what is pending and close the partial file; a file without rows is removed unless committed."""
        try:
            self._flush()
        finally:
            try:
                self._writer.close()
            except OSError as error:
                raise _write_error(self.output, error) from None

    def commit(self) -> None:
        """Close the file and give it its name. Raises: OutputError."""
        self.close()
        try:
            self.partial.replace(self.output)
        except OSError as error:
            raise _write_error(self.output, error) from None

    def abandon(self) -> int:
        """Close without renaming; returns the rows kept in the partial file, which is removed if there are none."""
        try:
            self.close()
        except OutputError:
            self.n_rows = 0
        if not self.n_rows:
            self.partial.unlink(missing_ok=True)
        return self.n_rows


def check_output(output: Path, overwrite: bool) -> None:
    """Refuse an output that exists or whose folder does not. Raises: OutputError."""
    if output.is_dir():
        raise OutputError(
            f"{output}: got a directory, expected the name of a file. Add a name, as {output}/masks.parquet"
        )
    if output.exists() and not overwrite:
        raise OutputError(f"{output}: got a file that exists, expected a new name. Use --overwrite to replace it.")
    if not output.absolute().parent.is_dir():
        raise OutputError(
            f"{output}: got no folder {output.parent}, expected one to write to. Make it: mkdir -p {output.parent}"
        )


def _write_error(output: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{output}: got '{error.strerror or error}' while writing, expected a place with space and permission. "
        "Mend that, or name another -o."
    )
