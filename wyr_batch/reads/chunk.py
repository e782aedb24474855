"""Consecutive reads as columns, and how they are grouped into chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wyr_batch.errors import InputError
from wyr_batch.reads.records import SEQUENCE_BYTES, Columns, offsets_from, shown

STDIN_NAME = "<stdin>"
BETWEEN_PAIR = "\n"  # what stands between the two texts of a pair

Values = TypeVar("Values", npt.NDArray[np.uint8], npt.NDArray[np.int64])


@dataclass(frozen=True, slots=True)
class ReadChunk:
    """Consecutive reads of one input, in input order, as columns; proteins and texts are reads as well.

    Attributes:
        ids: pa.string() [n], header up to the first white space.
        mates: int8 [n], 1 or 2 for the reads of a pair (SAM, BAM, CRAM), else 0.
        bases: uint8 [offsets[n]], ASCII as in the file; of texts UTF-8.
        offsets: int64 [n + 1], in bytes; read i is bases[offsets[i]:offsets[i + 1]].
        source: the file as the user named it, `<stdin>` for `-`.
        first_record: number of the chunk's first read in that file, from 1; skipped alignments do not count.
        place: of the file among the inputs of the command, from 0; of pairs, the first mates' file.
        qualities: uint8 [offsets[n]], ASCII from `!` on; None unless they are asked for.
        letters: int64 [n], code points of each text; None: as many as bytes.
        second: int64 [n], byte of the row where the second text of a pair begins, after the first and a line break;
            -1 where there is none, None: there are no pairs.
    """

    ids: pa.StringArray
    mates: npt.NDArray[np.int8]
    bases: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]
    source: str
    first_record: int
    place: int = 0
    qualities: npt.NDArray[np.uint8] | None = None
    letters: npt.NDArray[np.int64] | None = None
    second: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.mates)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Bases of each read, int64 [n]; of texts code points."""
        return np.diff(self.offsets) if self.letters is None else self.letters

    @property
    def n_bases(self) -> int:
        """Bases of all reads; of texts code points."""
        return int(self.offsets[-1] if self.letters is None else self.letters.sum())

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
            _slice(self.qualities, offsets[0], offsets[-1]),
            _slice(self.letters, start, stop),
            _slice(self.second, start, stop),
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
            raise InputError(source, f"{len(names)} ids", len(sequences), "Give one id for each sequence.")
        encoded = [text.strip().encode("utf-8", "backslashreplace") for text in sequences]
        for i, sequence in enumerate(encoded):
            if odd := sequence.translate(None, SEQUENCE_BYTES):
                got = f"{shown(odd[:1])} in {shown(sequence)}"
                where, expected = f"{source}, sequence {i + 1}", "letters, '*', '-' or '.'"
                raise InputError(where, got, expected, "Check where it comes from.")
        columns = columns_from(names, [0] * len(names), encoded)
        return cls(columns.ids, columns.mates, columns.bases, offsets_from(columns.lengths), source, 1)

    @classmethod
    def from_texts(
        cls,
        texts: Sequence[str],
        seconds: Sequence[str] | None = None,
        ids: Sequence[str] | None = None,
        source: str = "<memory>",
    ) -> ReadChunk:
        """Build a chunk from texts, or from pairs of texts; those without ids are called `1`, `2`, ...

        Raises: InputError for another number of ids or of second texts, and for what is no text: a NUL, a surrogate.

        Example: `ReadChunk.from_texts(["né", ""]).lengths.tolist() == [2, 0]`
        """
        names = [str(i + 1) for i in range(len(texts))] if ids is None else list(ids)
        for what, given in (("ids", names), ("second texts", texts if seconds is None else seconds)):
            if len(given) != len(texts):
                raise InputError(source, f"{len(given)} {what}", len(texts), f"Give as many {what} as texts.")
        firsts = texts if seconds is None else [text + BETWEEN_PAIR for text in texts]
        rows = firsts if seconds is None else list(map("".join, zip(firsts, seconds, strict=True)))
        for i, text in enumerate(rows):
            if odd := next((letter for letter in text if letter == "\0" or "\ud800" <= letter <= "\udfff"), None):
                got = f"{shown(odd)} in {shown(text)}"
                raise InputError(f"{source}, text {i + 1}", got, "text", "Check where it comes from.")
        columns = columns_from(names, [0] * len(names), [text.encode() for text in rows])
        offsets = offsets_from(columns.lengths)
        letters = np.fromiter(map(len, rows), np.int64, len(rows))
        second = None
        if seconds is not None:
            second = np.fromiter((len(text.encode()) for text in firsts), np.int64, len(firsts))
        return cls(columns.ids, columns.mates, columns.bases, offsets, source, 1, letters=letters, second=second)


class Regrouper:
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
        columns = [np.concatenate(parts) for parts in zip(*(part[1:4] for part in self._waiting), strict=True)]
        mates, bases, offsets = columns[0], columns[1], offsets_from(columns[2])
        qualities = joined([part.qualities for part in self._waiting])
        letters, second = (joined([part[i] for part in self._waiting]) for i in (5, 6))
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
                _slice(qualities, offsets[start], offsets[stop]),
                _slice(letters, start, stop),
                _slice(second, start, stop),
            )
            start = stop
        rest = _slice(qualities, offsets[start], offsets[-1])
        left = Columns(
            ids[start:],
            mates[start:],
            bases[offsets[start] :],
            columns[2][start:],
            rest,
            _slice(letters, start, n),
            _slice(second, start, n),
        )
        self._waiting, self._n_reads, self._n_bases = [left], n - start, len(left.bases)


def upper_case(bases: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return ASCII letters in upper case, everything else as it is."""
    is_lower = (bases >= ord("a")) & (bases <= ord("z"))
    return bases - is_lower * np.uint8(ord("a") - ord("A"))


def joined(parts: Sequence[Values | None]) -> Values | None:
    """Return a column of consecutive reads, None if some have none."""
    found = [part for part in parts if part is not None]
    return np.concatenate(found) if len(found) == len(parts) else None


def _slice(values: Values | None, start: int, stop: int) -> Values | None:
    return None if values is None else values[start:stop]


def columns_from(
    names: list[str], mates: list[int], sequences: list[bytes], qualities: list[bytes] | None = None
) -> Columns:
    lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
    bases = np.frombuffer(bytearray().join(sequences), np.uint8)
    joined = None if qualities is None else np.frombuffer(bytearray().join(qualities), np.uint8)
    return Columns(pa.array(names, pa.string()), np.array(mates, np.int8), bases, lengths, joined)
