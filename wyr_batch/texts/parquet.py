"""Parquet, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from wyr_batch.errors import InputError
from wyr_batch.reads.source import CUT
from wyr_batch.texts.arrays import FAILURES, choose_of, rows_of
from wyr_batch.texts.choose import TextColumns
from wyr_batch.texts.rows import BATCH_ROWS, BadRow, TextRows

_BATCH_BYTES = 4_000_000
_BUFFER_BYTES = 1 << 20


class ParquetTable:
    """An open file; see `PlainText.rows`.

    Attributes:
        share: of the rows that have been read, 0 to 1.
    """

    def __init__(self, file: BinaryIO, asked: TextColumns, where: str) -> None:
        """
        Args:
            where: the file, for messages.
        Raises: InputError if it is damaged, or lacks the columns.
        """
        self._handle = file
        self.share = 0.0
        try:
            self._file = self._open()
            schema = self._file.schema_arrow
        except FAILURES as error:
            raise InputError(where, f"unreadable Parquet ({error})", "whole Parquet data", CUT) from None
        self._chosen = choose_of(asked, schema, where)

    def _open(self) -> pq.ParquetFile:
        return pq.ParquetFile(
            self._handle, pre_buffer=False, buffer_size=_BUFFER_BYTES, page_checksum_verification=True
        )

    def rows(self) -> Iterator[TextRows]:
        """Yield the rows. Raises: BadRow after the last good one."""
        metadata = self._file.metadata
        n_done = 0
        for group in range(metadata.num_row_groups):
            of_group = metadata.row_group(group)
            row_bytes = max(1, of_group.total_byte_size // max(1, of_group.num_rows))
            n = 0
            try:
                for batch in self._batches(self._file, group, min(BATCH_ROWS, max(1, _BATCH_BYTES // row_bytes))):
                    self.share = (n_done + n + len(batch)) / metadata.num_rows
                    yield from rows_of(batch, self._chosen)
                    n += len(batch)
            except FAILURES as error:
                yield from self._one_by_one(group, n)
                got = f"Parquet data that cannot be read ({error})"
                raise BadRow("", got, "whole data", CUT) from None
            n_done += n

    def _batches(self, file: pq.ParquetFile, group: int, n_rows: int) -> Iterator[pa.RecordBatch]:
        columns = list(dict.fromkeys(name for name in self._chosen if name is not None))
        batches: Iterator[pa.RecordBatch] = file.iter_batches(n_rows, [group], columns, use_threads=False)
        return batches

    def _one_by_one(self, group: int, n_skip: int) -> Iterator[TextRows]:
        """Yield the good rows of a damaged batch: those after `n_skip` of the row group."""
        try:
            for i, batch in enumerate(self._batches(self._open(), group, 1)):
                if i >= n_skip:
                    yield from rows_of(batch, self._chosen)
        except FAILURES:
            return
