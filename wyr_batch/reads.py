"""Open FASTQ, FASTA, SAM, BAM or CRAM, packed or not, by content, and stream them as columns of reads.

All reads before a damaged place are given first; the `InputError` that names the place comes after them.
Bytes of plain gzip and zstd are used before a checksum has been seen: reads near damage may be wrong ones.

Not handled: bzip2, xz, lz4, fast5, POD5 (named and refused); per-base qualities (checked, not kept).
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pysam
from pysam.libcutils import set_encoding_error_handler

from wyr_batch.bytesource import CUT, ByteSource, DamagedStream, Problem, open_file
from wyr_batch.detect import EMPTY, detect_format
from wyr_batch.errors import InputError, UsageError
from wyr_batch.fastx import (
    SEQUENCE_BYTES,
    Columns,
    Parser,
    mate_from_flag,
    offsets_from,
    parse_fasta,
    parse_fastq,
    parse_sam,
    shown,
)
from wyr_batch.files import shown_path

logger = logging.getLogger("wyr_batch")

STDIN_NAME = "<stdin>"
_BLOCK_BYTES = 1 << 20
_BATCH_READS, _BATCH_BASES = 1024, 4_000_000
_ESCAPED = re.compile(r"\\x[89a-f][0-9a-f]")
_PROTEIN_LETTERS, _PROTEIN_SHARE, _LOOKED_AT_BASES = np.frombuffer(b"efilpq", np.uint8), 0.1, 100_000
_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


@dataclass(frozen=True, slots=True)
class ReadChunk:
    """Consecutive reads of one input, in input order, as columns.

    Attributes:
        ids: pa.string() [n], header up to the first white space.
        mates: int8 [n], 1 or 2 for the reads of a pair (SAM, BAM, CRAM), else 0.
        bases: uint8 [offsets[n]], ASCII as in the file.
        offsets: int64 [n + 1]; read i is bases[offsets[i]:offsets[i + 1]].
        source: the file as the user named it, `<stdin>` for `-`.
        first_record: number of the chunk's first read in that file, from 1; skipped alignments do not count.
        place: of the file among the inputs of the command, from 0; of pairs, the first mates' file.
    """

    ids: pa.StringArray
    mates: npt.NDArray[np.int8]
    bases: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    source: str
    first_record: int
    place: int = 0

    def __len__(self) -> int:
        return len(self.mates)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Bases of each read, int64 [n]."""
        return np.diff(self.offsets)

    @property
    def n_bases(self) -> int:
        """Bases of all reads."""
        return int(self.offsets[-1])

    def part(self, start: int, stop: int) -> ReadChunk:
        """Return reads start to stop of the chunk."""
        offsets = self.offsets[start : stop + 1]
        return ReadChunk(
            self.ids[start:stop],
            self.mates[start:stop],
            self.bases[offsets[0] : offsets[-1]],
            offsets - offsets[0],
            self.source,
            self.first_record + start,
            self.place,
        )

    @classmethod
    def from_sequences(
        cls, sequences: Sequence[str], ids: Sequence[str] | None = None, source: str = "<memory>"
    ) -> ReadChunk:
        """Build a chunk from strings; reads without ids are called `read1`, `read2`, ...

        White space around a sequence does not count; inside, bases are what FASTA may hold. Raises: InputError.

        Example: `ReadChunk.from_sequences(["ACGT", "NN"]).offsets.tolist() == [0, 4, 6]`
        """
        names = [f"read{i + 1}" for i in range(len(sequences))] if ids is None else list(ids)
        if len(names) != len(sequences):
            got = f"{len(names)} ids, expected {len(sequences)}"
            raise InputError(f"{source}: got {got}. Give one id for each sequence.")
        encoded = [text.strip().encode("utf-8", "backslashreplace") for text in sequences]
        for i, sequence in enumerate(encoded):
            if odd := sequence.translate(None, SEQUENCE_BYTES):
                got = f"{source}, sequence {i + 1}: got {shown(odd[:1])} in {shown(sequence)}"
                raise InputError(f"{got}, expected letters, '*', '-' or '.'. Check where it comes from.")
        columns = _columns_from(names, [0] * len(names), encoded)
        return cls(columns.ids, columns.mates, columns.bases, offsets_from(columns.lengths), source, 1)


class Reads:
    """An open input: an iterator of `ReadChunk` and a context manager.

    Attributes:
        path: as given.
        format: FASTQ, FASTA, SAM, BAM or CRAM, or `detect.EMPTY`.
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
        warn: Callable[[str], None] = logger.warning,
    ) -> None:
        """
        Args:
            place: goes into the chunks.
            warn: takes what a user should know of the file, each once.
        """
        for name, value in (("chunk_reads", chunk_reads), ("chunk_bases", chunk_bases)):
            if value < 1:
                raise UsageError(f"{name}: got {value}, expected at least 1. Give a larger number.")
        self.path = os.fspath(path)
        self.n_reads = self.n_bases = self.n_skipped = 0
        self._name = STDIN_NAME if self.path == "-" else shown_path(self.path)
        self._warn, self._n_escaped = warn, 0
        self._record = self._line = 0  # good records and lines so far
        self._block_bytes = block_bytes
        self._file, self.total_bytes = open_file(self.path)
        try:
            self._bytes = ByteSource(self._file, block_bytes)
            self.compression = self._bytes.compression
            self.format = detect_format(self._bytes, self._name)
        except OSError as error:
            self.close()
            got = f"a read error ({error.strerror or error})"
            raise InputError(f"{self._name}: got {got}, expected a readable file. {CUT}") from None
        except BaseException:
            self.close()
            raise
        self._regrouper = _Regrouper(self._name, chunk_reads, chunk_bases, place)
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
        if not self.n_reads:
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
                f"{self._name}: got {self.n_skipped:,} secondary or supplementary alignments and nothing else, "
                "expected reads. Give the primary ones as well."
            )
        got = "0 bytes" if self.format == EMPTY else f"a {self.format} header and no records"
        self._warn(f"{self._name}: {got}, so no reads.")

    def _make_chunks(self) -> Generator[ReadChunk, None, None]:
        if self.format == EMPTY:
            self._check_any()
            return
        parsers = {"FASTQ": parse_fastq, "FASTA": parse_fasta, "SAM": parse_sam}
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
        """BAM and CRAM: a thread unpacks into a pipe, pysam reads it; so pipes and files are one case."""
        read_end, write_end = os.pipe()
        pump = threading.Thread(target=self._pump, args=(write_end,), daemon=True)
        pump.start()
        failure: Exception | None = None
        try:
            with open(read_end, "rb") as pipe:
                try:
                    with _quiet_pysam():
                        alignments = pysam.AlignmentFile(pipe, "r", check_sq=False)
                except (OSError, ValueError) as error:
                    failure = error
                else:
                    with alignments:
                        records = alignments.fetch(until_eof=True)
                        while not failure:
                            columns, failure, at_end = self._batch(records)
                            yield columns
                            if at_end:
                                break
        finally:
            pump.join(timeout=1)  # it ends at the closed pipe, unless it waits for a stdin that says nothing
        if problem := self._alignment_problem(failure):
            raise self._error(problem)

    def _batch(self, records: Any) -> tuple[Columns, Exception | None, bool]:
        """Up to a batch of reads, what broke it off, and whether the input is over."""
        names: list[str] = []
        mates: list[int] = []
        sequences: list[bytes] = []
        n_bases = n_escaped = 0
        failure: Exception | None = None
        record = None
        try:
            with _quiet_pysam():
                for record in itertools.islice(records, _BATCH_READS):
                    if record.is_secondary or record.is_supplementary:
                        self.n_skipped += 1
                    else:
                        name = record.query_name or "*"
                        n_escaped += "\\x" in name and _ESCAPED.search(name) is not None
                        names.append(name)
                        mates.append(mate_from_flag(record.flag))
                        sequences.append((record.get_forward_sequence() or "").encode("ascii"))
                        n_bases += len(sequences[-1])
                    self._record += 1
                    if n_bases >= _BATCH_BASES:
                        break
        except (OSError, ValueError) as error:
            failure = error
        self._note_escaped(n_escaped)
        return _columns_from(names, mates, sequences), failure, record is None

    def _pump(self, write_end: int) -> None:
        try:
            with open(write_end, "wb", buffering=0) as pipe:
                while block := self._bytes.read(self._block_bytes):
                    view = memoryview(block)
                    while view:
                        view = view[pipe.write(view) :]
        except (DamagedStream, BrokenPipeError):
            pass  # the source keeps its damage; a closed pipe means that nobody wants more

    def _alignment_problem(self, failure: Exception | None) -> Problem | None:
        tail = self._bytes.tail
        if self._bytes.damage:
            return self._bytes.damage.problem
        if failure:
            advice = CUT
            if self.format == "CRAM":
                advice = "If the file is whole, its reference is missing: convert it to BAM (samtools view -b)."
            return Problem(None, -1, f"an unreadable record ({failure})", f"{self.format} data", advice)
        if self.format == "BAM" and self.compression == "bgzip" and not tail.endswith(_BGZF_END):
            return Problem(None, -1, "the end of the file without the BGZF end marker", "the marker")
        if self.format == "CRAM" and self.compression == "none" and b"\xe0EOF" not in tail:
            return Problem(None, -1, "the end of the file without the CRAM end marker", "the marker")
        return None

    def _error(self, problem: Problem) -> InputError:
        read = "" if problem.read_id is None else f", read {shown(problem.read_id)}"
        line = f", line {self._line + problem.line + 1}" if problem.line >= 0 else ""
        return InputError(
            f"{self._name}{read}, record {self._record + 1}{line}: got {problem.got}, "
            f"expected {problem.expected}. {problem.advice}"
        )


def open_reads(
    path: str | os.PathLike[str],
    *,
    chunk_reads: int = 8192,
    chunk_bases: int = 4_000_000,
    place: int = 0,
    warn: Callable[[str], None] = logger.warning,
) -> Reads:
    """Open reads by content.

    Args:
        path: a file, a pipe, or `-` for stdin.
        chunk_reads: most reads in a chunk.
        chunk_bases: most bases in a chunk; a longer read is a chunk of its own.
        place, warn: see `Reads`.
    Returns: a `Reads`; use it in `with`.
    Raises: InputError if there is nothing to read or it is no known format; damage further on is raised by
        the iteration, after the good reads.
    Example: `with open_reads("reads.fastq.gz") as reads: print(sum(chunk.n_bases for chunk in reads))`
    """
    return Reads(path, chunk_reads=chunk_reads, chunk_bases=chunk_bases, place=place, warn=warn)


class _Regrouper:
    """Cuts columns of any size into chunks: as many reads as both limits allow, but at least one."""

    def __init__(self, source: str, chunk_reads: int, chunk_bases: int, place: int) -> None:
        self._source, self._chunk_reads, self._chunk_bases, self._place = source, chunk_reads, chunk_bases, place
        self._waiting: list[Columns] = []
        self._n_reads = self._n_bases = 0  # waiting
        self._first_record = 1

    def chunks(self, columns: Columns) -> Iterator[ReadChunk]:
        """Take reads in; give the chunks that cannot grow any more."""
        self._waiting.append(columns)
        self._n_reads += len(columns.lengths)
        self._n_bases += len(columns.bases)
        if self._n_reads >= self._chunk_reads or self._n_bases > self._chunk_bases:
            yield from self._cut(False)

    def last(self) -> Iterator[ReadChunk]:
        """Give what is left."""
        if self._n_reads:
            yield from self._cut(True)

    def _cut(self, final: bool) -> Iterator[ReadChunk]:
        # Joined only when a chunk is full: each base is copied twice at most, however small the blocks.
        columns = [np.concatenate(parts) for parts in zip(*(part[1:] for part in self._waiting), strict=True)]
        mates, bases, offsets = columns[0], columns[1], offsets_from(columns[2])
        ids = pa.concat_arrays([part.ids for part in self._waiting])
        start, n = 0, len(ids)
        while start < n:
            stop = int(np.searchsorted(offsets, offsets[start] + self._chunk_bases, "right")) - 1
            stop = max(min(stop, start + self._chunk_reads), start + 1)
            if stop == n and stop - start < self._chunk_reads and not final:
                break
            first, self._first_record = self._first_record, self._first_record + stop - start
            yield ReadChunk(
                ids[start:stop],
                mates[start:stop],
                bases[offsets[start] : offsets[stop]],
                offsets[start : stop + 1] - offsets[start],
                self._source,
                first,
                self._place,
            )
            start = stop
        left = Columns(ids[start:], mates[start:], bases[offsets[start] :], columns[2][start:])
        self._waiting, self._n_reads, self._n_bases = [left], n - start, len(left.bases)


def _columns_from(names: list[str], mates: list[int], sequences: list[bytes]) -> Columns:
    lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
    bases = np.frombuffer(bytearray().join(sequences), np.uint8)
    return Columns(pa.array(names, pa.string()), np.array(mates, np.int8), bases, lengths)


@contextmanager
def _quiet_pysam() -> Iterator[None]:
    """What htslib would print is in our own messages, and names are escaped as in text formats.

    Both settings are global, so they are put back at once.
    """
    level = pysam.set_verbosity(0)
    handler = set_encoding_error_handler("backslashreplace")
    try:
        yield
    finally:
        pysam.set_verbosity(level)
        set_encoding_error_handler(handler)
