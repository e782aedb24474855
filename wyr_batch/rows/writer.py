"""Rows to a Parquet file that appears under its name only when it is whole and on the disk.

Every page has a checksum, for readers that look at it, and a part's footer has one of all its data, so that a part that
was damaged on the disk is seen before it is joined.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from wyr_batch.checks.files import sync_folder, write_error
from wyr_batch.errors import OutputError
from wyr_batch.reads.source import crc32

_MAGIC_BYTES = 4
ROW_GROUP_ROWS = 16_384  # few, so that writing them keeps step with reading
ROW_GROUP_BYTES = 256 << 20  # of Arrow arrays: long reads make row groups of fewer rows, so memory stays flat


class _Sink:
    """A file that knows the checksum of what has been written, its first four bytes (Parquet's magic) aside."""

    closed = False

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self.crc32 = self.n_bytes = 0

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self.crc32 = crc32(view[max(0, _MAGIC_BYTES - self.n_bytes) :], self.crc32)
        self.n_bytes += len(view)
        self._file.write(view)
        return len(view)

    def flush(self) -> None:
        self._file.flush()

    def sync(self) -> None:
        """Bring all to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self.closed = True
        self._file.close()


class MaskWriter:
    """Collects record batches into row groups and writes them to `<output>.partial`; `commit` renames it."""

    def __init__(self, output: Path, schema: pa.Schema, metadata: Mapping[str, Any], attempt: str = "") -> None:
        """
        Args:
            metadata: goes into the file's footer as JSON under the key `wyr`.
            attempt: goes into the partial file's name, where two may be writing the same output.
        Raises: OutputError if the file cannot be written.
        """
        self.output = output
        self.partial = output.with_name(f"{output.name}{attempt}.partial")
        self.n_rows = 0
        self._pending: list[pa.RecordBatch] = []
        self._n_pending = self._n_pending_bytes = 0
        self.schema = schema.with_metadata(footer_metadata(metadata))
        delta = [f"{f.name}.list.element" for f in schema if f.name == "token_start"]
        try:
            self._sink = _Sink(self.partial)  # not by name: Arrow takes no name that is not UTF-8
            self._writer = pq.ParquetWriter(
                self._sink,
                self.schema,
                compression="zstd",
                write_page_checksum=True,
                use_dictionary=[f.name for f in schema if pa.types.is_dictionary(f.type)],
                column_encoding=dict.fromkeys(delta, "DELTA_BINARY_PACKED"),
                write_statistics=[f.name for f in schema if not pa.types.is_list(f.type)],
            )
        except OSError as error:
            raise write_error(self.output, error) from None

    def write(self, batch: pa.RecordBatch) -> None:
        """Take the rows of one batch; they reach the disk by row groups. Raises: OutputError."""
        while self._n_pending + batch.num_rows >= ROW_GROUP_ROWS:
            n_fitting = ROW_GROUP_ROWS - self._n_pending
            self._take(batch.slice(0, n_fitting))
            self._flush()
            batch = batch.slice(n_fitting)
        self._take(batch)
        if self._n_pending_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _take(self, batch: pa.RecordBatch) -> None:
        if batch.num_rows:
            self._pending.append(batch)
            self._n_pending += batch.num_rows
            self._n_pending_bytes += batch.nbytes

    def _flush(self) -> None:
        if not self._n_pending:
            return
        table = pa.Table.from_batches(self._pending).replace_schema_metadata(self.schema.metadata)
        try:
            self._writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        except OSError as error:
            raise write_error(self.output, error) from None
        self.n_rows += self._n_pending
        self._pending, self._n_pending, self._n_pending_bytes = [], 0, 0

    def commit(self, **metadata: Any) -> None:
        """Write what is pending, close the file, and give it its name once it is on the disk.

        Args:
            metadata: more for the footer, each as JSON under its key with `wyr_` before it; `part` gets `data_crc32`.
        Raises: OutputError; the partial file is then gone, to give back its space.
        """
        try:
            self._flush()
            if "part" in metadata:
                metadata["part"] = {**metadata["part"], "data_crc32": self._sink.crc32}
            self._writer.add_key_value_metadata({f"wyr_{key}": json.dumps(value) for key, value in metadata.items()})
            self._writer.close()
            self._sink.sync()
            self._sink.close()
            self.partial.replace(self.output)
            sync_folder(self.output.absolute().parent)
        except OSError as error:
            self.discard()
            raise write_error(self.output, error) from None
        except OutputError:
            self.discard()
            raise

    def discard(self) -> None:
        """Close and remove the partial file."""
        try:
            self._writer.close()
            self._sink.close()
        except OSError:
            pass
        finally:
            self.partial.unlink(missing_ok=True)


def footer_metadata(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the schema metadata that say how a file was made; `info` shows them."""
    return {"wyr": json.dumps(content)}
