"""Open texts by content and stream them as columns of reads: the same as `reads.open` for another kind of input.

All rows before a damaged place are given first; the `InputError` that names the place comes after them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator
from functools import partial
from types import TracebackType
from typing import BinaryIO, Protocol

from wyr_batch.checks.files import is_folder, shown_path
from wyr_batch.errors import InputError, UsageError
from wyr_batch.reads.chunk import STDIN_NAME, ReadChunk, Regrouper
from wyr_batch.reads.formats import EMPTY
from wyr_batch.reads.open import Opener, open_reads
from wyr_batch.reads.source import CUT, ByteSource, open_file
from wyr_batch.texts.arrow import ArrowTable, files_of_folder
from wyr_batch.texts.choose import USUAL_COLUMNS, TextColumns
from wyr_batch.texts.delimited import Delimited
from wyr_batch.texts.formats import ARROW, EXPECTED, JSONL, PARQUET, TEXT, TSV, detect_format
from wyr_batch.texts.jsonl import JsonLines
from wyr_batch.texts.lines import Lines, PlainText
from wyr_batch.texts.rows import CHECK, BadRow, TextRows, columns_from_rows, first_bad

logger = logging.getLogger(__name__)

READS, PROTEINS, TEXTS = "reads", "proteins", "text"
_BLOCK_BYTES = 1 << 20


class Table(Protocol):
    """Rows of an input."""

    def rows(self) -> Iterator[TextRows]:
        """Yield the rows. Raises: BadRow after the last good one."""


class Texts:
    """An open input: an iterator of `ReadChunk` and a context manager.

    Attributes:
        path: as given.
        format: one of `formats`.
        n_reads: texts given so far.
        total_bytes: size of the file or of a folder's files, None for stdin and pipes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        columns: TextColumns = USUAL_COLUMNS,
        *,
        chunk_reads: int = 8192,
        chunk_bases: int = 4_000_000,
        block_bytes: int = _BLOCK_BYTES,
        place: int = 0,
        qualities: bool = False,
        warn: Callable[[str], None] = logger.warning,
    ) -> None:
        """
        Args:
            columns: to read, of tables.
            chunk_reads, chunk_bases: most texts and bytes in a chunk; a longer text is a chunk of its own.
            place: goes into the chunks.
            qualities: texts have none.
            warn: takes what a user should know of the file, each once.
        Raises: InputError if there is nothing to read, it is no known format or lacks the columns; damage further on
            is raised by the iteration, after the good rows.
        Example: `with Texts("reviews.csv") as texts: print(sum(chunk.n_bases for chunk in texts))`
        """
        for name, value in (("chunk_reads", chunk_reads), ("chunk_bases", chunk_bases)):
            if value < 1:
                raise UsageError(name, value, "at least 1", "Give a larger number.")
        self.path = os.fspath(path)
        self.n_reads, self._is_done = 0, False
        self._name = STDIN_NAME if self.path == "-" else shown_path(self.path)
        if qualities:
            raise InputError(self._name, "texts", "reads with qualities")
        self._asked, self._warn, self._block_bytes = columns, warn, block_bytes
        self._file: BinaryIO | None = None
        self._bytes: ByteSource | None = None
        self.total_bytes: int | None
        try:
            self._table = self._open_folder() if self.path != "-" and is_folder(self.path) else self._open_file()
        except BaseException:
            self._close_file()
            raise
        self._regrouper = Regrouper(self._name, chunk_reads, chunk_bases, place)
        self._chunks = self._make_chunks()

    def _open_folder(self) -> Table:
        self.format = ARROW
        table = ArrowTable(files_of_folder(self.path), self._asked, self._name)
        self.total_bytes = table.total_bytes
        return table

    def _open_file(self) -> Table | None:
        self._file, self.total_bytes = open_file(self.path, EXPECTED)
        try:
            source = self._bytes = ByteSource(self._file, self._block_bytes)
            self.format = detect_format(source, self.path, self._name, bool(self._asked.flags))
            if self.format in (PARQUET, ARROW):
                self._check_seekable(source)
                self._bytes = None
                if self.format == ARROW:
                    return ArrowTable([self.path], self._asked, self._name)
                from wyr_batch.texts.parquet import ParquetTable  # Arrow's Parquet is needed here only

                self._file.seek(0)
                return ParquetTable(self._file, self._asked, self._name)
        except OSError as error:
            got = f"a read error ({error.strerror or error})"
            raise InputError(self._name, got, "a readable file", CUT) from None
        if self.format == EMPTY:
            return None
        lines = Lines(source, self._block_bytes)
        if self.format == TEXT:
            return PlainText(lines)
        if self.format == JSONL:
            return JsonLines(lines, self._asked, self._name)
        return Delimited(lines, self._asked, "\t" if self.format == TSV else None, self._name)

    def _check_seekable(self, source: ByteSource) -> None:
        if source.compression != "none":
            got = f"{self.format} inside {source.compression}"
            raise InputError(self._name, got, "the file itself", "Unpack it: such files are packed inside.")
        if self.total_bytes is None:
            advice = "Write it to a file first."
            raise InputError(self._name, f"{self.format} as a stream", "a file, which can be read at any place", advice)

    @property
    def compressed_bytes_read(self) -> int:
        """Bytes taken from the file so far; equals `total_bytes` at the end."""
        if self._bytes is not None:
            return self._bytes.n_packed_bytes
        share = 1.0 if self._is_done else getattr(self._table, "share", 1.0)
        return round(share * (self.total_bytes or 0))

    def __enter__(self) -> Texts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[ReadChunk]:
        return self

    def __next__(self) -> ReadChunk:
        chunk = next(self._chunks)
        self.n_reads += len(chunk)
        return chunk

    def close(self) -> None:
        """Close the file; chunks already given stay good."""
        self._chunks.close()
        self._close_file()

    def _close_file(self) -> None:
        if self._file is not None and self.path != "-":
            self._file.close()

    def _make_chunks(self) -> Generator[ReadChunk, None, None]:
        damage: InputError | None = None
        n = 0
        try:
            for rows in self._table.rows() if self._table else ():
                n_good, got = _first_bad(rows)
                if n_good:
                    yield from self._regrouper.chunks(columns_from_rows(rows.part(0, n_good), n + 1))
                n += n_good
                if got:
                    damage = InputError(f"{self._name}, row {n + 1}", got, "UTF-8 text", CHECK)
                    break
        except BadRow as bad:
            place = bad.place or f"row {n + 1}"
            damage = InputError(f"{self._name}, {place}", bad.got, bad.expected, bad.advice)
        yield from self._regrouper.last()
        if damage:
            raise damage
        self._is_done = True  # a table without rows has never said how far it is
        if not n:
            got = "0 bytes" if self.format == EMPTY else f"{self.format} and no rows"
            self._warn(f"{self._name}: {got}, so no texts.")


def _first_bad(rows: TextRows) -> tuple[int, str]:
    """Return how many rows are good, and what is wrong with the next."""
    found = [first_bad(values) for values in (rows.texts, rows.seconds, rows.ids) if values is not None]
    return min((each for each in found if each), default=(len(rows.texts), ""))


def opener(kind: str, columns: TextColumns = USUAL_COLUMNS) -> Opener | None:
    """Return what opens inputs of a kind: READS, PROTEINS or TEXTS; None for reads, as `reads.stream` has it."""
    openers: dict[str, Opener | None] = {
        READS: None,
        PROTEINS: partial(open_reads, proteins=True),
        TEXTS: partial(Texts, columns=columns),
    }
    return openers[kind]
