"""Open FASTQ, FASTA, SAM, BAM or CRAM, packed or not, by content, and stream them as columns of reads.

All reads before a damaged place are given first; the `InputError` that names the place comes after them.
Bytes of plain gzip and zstd are used before a checksum has been seen: reads near damage may be wrong ones.

Not handled: bzip2, xz, lz4, fast5, POD5 (named and refused).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator
from functools import partial
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from wyr_batch.checks.files import shown_path
from wyr_batch.errors import InputError, UsageError
from wyr_batch.reads.chunk import STDIN_NAME, ReadChunk, Regrouper
from wyr_batch.reads.fastx import parse_fasta, parse_fastq
from wyr_batch.reads.formats import EMPTY, detect_format
from wyr_batch.reads.records import Columns, Parser, no_qualities, shown
from wyr_batch.reads.sam import parse_sam
from wyr_batch.reads.source import CUT, ByteSource, DamagedStream, Problem, open_file

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 20
_PROTEIN_LETTERS, _PROTEIN_SHARE, _LOOKED_AT_BASES = np.frombuffer(b"efilpq", np.uint8), 0.1, 100_000


class OpenInput(Protocol):
    """What every kind of open input is: an iterator of `ReadChunk` and a context manager; see `Reads`."""

    path: str
    total_bytes: int | None

    @property
    def compressed_bytes_read(self) -> int:
        """Bytes taken from the file so far; equals `total_bytes` at the end."""

    def __iter__(self) -> Iterator[ReadChunk]: ...

    def __next__(self) -> ReadChunk: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def close(self) -> None:
        """Close the file; chunks already given stay good."""


# Called with the path, and `place`, `qualities` and `warn` as `open_reads` has them.
Opener = Callable[..., OpenInput]


class Reads:
    """An open input: an iterator of `ReadChunk` and a context manager.

    Attributes:
        path: as given.
        format: FASTQ, FASTA, SAM, BAM or CRAM, or `formats.EMPTY`.
        compression: none, gzip, bgzip or zstd.
        n_reads, n_bases: given so far.
        n_skipped: secondary and supplementary alignments met so far.
        total_bytes: size of the file, None for stdin and pipes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        chunk_reads: int = 8192,
        chunk_bases: int = 4_000_000,
        block_bytes: int = _BLOCK_BYTES,
        place: int = 0,
        qualities: bool = False,
        proteins: bool = False,
        warn: Callable[[str], None] = logger.warning,
    ) -> None:
        """
        Args:
            place: goes into the chunks.
            qualities: keep the qualities; reads without any are then an error.
            proteins: are meant, so that their letters are nothing to warn of.
            warn: takes what a user should know of the file, each once.
        """
        for name, value in (("chunk_reads", chunk_reads), ("chunk_bases", chunk_bases)):
            if value < 1:
                raise UsageError(name, value, "at least 1", "Give a larger number.")
        self.path = os.fspath(path)
        self.n_reads = self.n_bases = self.n_skipped = 0
        self._name = STDIN_NAME if self.path == "-" else shown_path(self.path)
        self._warn, self._n_escaped = warn, 0
        self._record = self._line = 0  # good records and lines so far
        self._block_bytes, self._qualities, self._proteins = block_bytes, qualities, proteins
        self._file, self.total_bytes = open_file(self.path)
        try:
            self._bytes = ByteSource(self._file, block_bytes)
            self.compression = self._bytes.compression
            self.format = detect_format(self._bytes, self._name)
        except OSError as error:
            self.close()
            got = f"a read error ({error.strerror or error})"
            raise InputError(self._name, got, "a readable file", CUT) from None
        except BaseException:
            self.close()
            raise
        self._regrouper = Regrouper(self._name, chunk_reads, chunk_bases, place)
        self._chunks = self._make_chunks()

    @property
    def compressed_bytes_read(self) -> int:
        """Bytes taken from the file so far; equals `total_bytes` at the end."""
        return self._bytes.n_packed_bytes

    def __enter__(self) -> Reads:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[ReadChunk]:
        return self

    def __next__(self) -> ReadChunk:
        chunk = next(self._chunks)
        if not self.n_reads and not self._proteins:
            self._look_at_letters(chunk.bases[:_LOOKED_AT_BASES])
        self.n_reads += len(chunk)
        self.n_bases += chunk.n_bases
        return chunk

    def close(self) -> None:
        """Close the file; chunks already given stay good."""
        if hasattr(self, "_chunks"):
            self._chunks.close()
        if self.path != "-":
            self._file.close()

    def _look_at_letters(self, bases: npt.NDArray[np.uint8]) -> None:
        """Warn if these are the letters of proteins."""
        share = np.isin(bases | 0x20, _PROTEIN_LETTERS).mean() if len(bases) else 0.0
        if share > _PROTEIN_SHARE:
            self._warn(
                f"{self._name}: {share:.0%} of the letters are E, F, I, L, P or Q, which proteins have and nucleotides "
                "have not. The classifier reads each run of them as one unknown token."
            )

    def _note_escaped(self, n: int) -> None:
        if n and not self._n_escaped:
            self._warn(f"{self._name}: some names hold bytes that are not UTF-8; they are written as \\xNN.")
        self._n_escaped += n

    def _check_any(self) -> None:
        """Say that the file holds no read. Raises: InputError if it holds records, and all of them were skipped."""
        if self.n_skipped:
            raise InputError(
                self._name,
                f"{self.n_skipped:,} secondary or supplementary alignments and nothing else",
                "reads",
                "Give the primary ones as well.",
            )
        got = "0 bytes" if self.format == EMPTY else f"a {self.format} header and no records"
        self._warn(f"{self._name}: {got}, so no reads.")

    def _make_chunks(self) -> Generator[ReadChunk, None, None]:
        if self.format == EMPTY:
            self._check_any()
            return
        if self._qualities and self.format == "FASTA":
            raise self._error(no_qualities(None))
        parsers: dict[str, Parser] = {
            "FASTQ": partial(parse_fastq, qualities=self._qualities),
            "FASTA": parse_fasta,
            "SAM": partial(parse_sam, qualities=self._qualities),
        }
        parser = parsers.get(self.format)
        blocks = self._text(parser) if parser else self._alignments()
        damage: InputError | None = None
        try:
            while True:
                try:
                    columns = next(blocks)
                except InputError as error:
                    damage = error
                    break
                except StopIteration:
                    break
                yield from self._regrouper.chunks(columns)
            yield from self._regrouper.last()
            if damage:
                raise damage
            if self._record == self.n_skipped:
                self._check_any()
            elif self.n_skipped:
                self._warn(f"{self._name}: {self.n_skipped:,} secondary or supplementary alignments skipped.")
        finally:
            blocks.close()

    def _text(self, parse: Parser) -> Generator[Columns, None, None]:
        block = b""
        while True:
            damage = None
            try:
                # As much again as is waiting: a record over many blocks is then scanned twice, not n times.
                more = self._bytes.read(max(self._block_bytes, len(block)))
            except DamagedStream as error:
                more, damage = b"", error
            final = not more and not damage
            parsed = parse(block + more, final)
            self.n_skipped += parsed.n_skipped
            self._record += len(parsed.columns.lengths) + parsed.n_skipped
            self._note_escaped(parsed.n_escaped)
            yield parsed.columns
            if parsed.problem:
                raise self._error(parsed.problem)
            self._line += parsed.n_lines
            if damage:
                raise self._error(damage.problem)
            if final:
                return
            block = (block + more)[parsed.n_bytes :]

    def _alignments(self) -> Generator[Columns, None, None]:
        from wyr_batch.reads.alignments import Alignments  # pysam is needed here only

        alignments = Alignments(self._bytes, self.format, self._block_bytes, self._qualities)
        record = self._record
        for columns in alignments.columns():
            self.n_skipped, self._record = alignments.n_skipped, record + alignments.n_records
            self._note_escaped(alignments.n_escaped - self._n_escaped)
            yield columns
        if problem := alignments.problem():
            raise self._error(problem)

    def _error(self, problem: Problem) -> InputError:
        read = "" if problem.read_id is None else f", read {shown(problem.read_id)}"
        line = f", line {self._line + problem.line + 1}" if problem.line >= 0 else ""
        return InputError(
            f"{self._name}{read}, record {self._record + 1}{line}", problem.got, problem.expected, problem.advice
        )


def open_reads(
    path: str | os.PathLike[str],
    *,
    chunk_reads: int = 8192,
    chunk_bases: int = 4_000_000,
    place: int = 0,
    qualities: bool = False,
    proteins: bool = False,
    warn: Callable[[str], None] = logger.warning,
) -> Reads:
    """Open reads by content.

    Args:
        path: a file, a pipe, or `-` for stdin.
        chunk_reads: most reads in a chunk.
        chunk_bases: most bases in a chunk; a longer read is a chunk of its own.
        place, qualities, proteins, warn: see `Reads`.
    Returns: a `Reads`; use it in `with`.
    Raises: InputError if there is nothing to read or it is no known format; damage further on is raised by
        the iteration, after the good reads.
    Example: `with open_reads("reads.fastq.gz") as reads: print(sum(chunk.n_bases for chunk in reads))`
    """
    return Reads(
        path,
        chunk_reads=chunk_reads,
        chunk_bases=chunk_bases,
        place=place,
        qualities=qualities,
        proteins=proteins,
        warn=warn,
    )
