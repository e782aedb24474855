"""Units: what travels between the machines of a cluster, as tables of one row: reads out, counts back.

read    -> Unit           whole chunks of reads, numbered, with their place in the run     reads/stream.py
send    -> pa.Table       a row: `about` (JSON), `reads` (an Arrow stream of the chunks)
explain -> part file      renamed when whole, so that a second attempt gives the same      worker.py
back    -> pa.Table       a row: `about` (JSON): counts, seconds

Errors a user can mend travel as rows too: what was read before an error is explained first. This module knows no Ray.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from wyr_batch import errors
from wyr_batch.errors import WyrError
from wyr_batch.job.config import RunConfig
from wyr_batch.job.job import damaged_inputs
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.reads.stream import InputWatch, read_new
from wyr_batch.texts.open import READS

# A unit is a part of the output, and what is done again when its worker dies.
UNIT_READS, UNIT_BASES = 16_384, 16_000_000

_CHUNK = pa.schema([("id", pa.string()), ("mate", pa.int8()), ("bases", pa.large_binary())])
_OF_TEXTS = ("letters", "second")  # columns that are there where the chunks have them


@dataclass(frozen=True, slots=True)
class Unit:
    """Reads that become one part of the output.

    Attributes:
        number: of the part.
        first_read: reads of the run before it.
        digest: checksums of all reads of the run up to its end, see `reads.digest.ReadsDigest`.
        share: of the inputs, read up to its end; None where that is unknown.
    """

    number: int
    first_read: int
    digest: tuple[int, ...]
    chunks: list[ReadChunk]
    share: float | None = None

    @property
    def n_reads(self) -> int:
        return sum(len(chunk) for chunk in self.chunks)


@dataclass(frozen=True, slots=True)
class Reading:
    """Where the reading of a run begins, and how it is cut; together with the inputs it says every unit.

    Attributes:
        folder: relative names of inputs start from there.
        first_unit, n_skip, skip_digest: parts, reads and their checksums that an earlier run finished.
        unit_reads, unit_bases: a unit is full with either.
        kind: of the inputs: 'reads', 'proteins' or 'text'.
    """

    config: RunConfig
    folder: str
    first_unit: int = 0
    n_skip: int = 0
    skip_digest: tuple[int, ...] = (0, 0, 0)
    unit_reads: int = UNIT_READS
    unit_bases: int = UNIT_BASES
    kind: str = READS


def read_units(reading: Reading) -> Iterator[pa.Table]:
    """Yield the units of all inputs as rows, then what the reader had to say, and an error that ended the reading.

    Two calls yield the same rows, so a reader that died may be replaced by one that starts anew.
    """
    enter_folder(reading.folder)
    warnings: list[str] = []
    watch = InputWatch(len(reading.config.inputs), warnings.append)
    chunks: list[ReadChunk] = []
    number, first_read, digest = reading.first_unit, reading.n_skip, reading.skip_digest
    failure: pa.Table | None = None
    try:
        inputs = reading.config.reading(reading.kind)
        for chunk, digest in read_new(inputs, watch, reading.n_skip, reading.skip_digest):
            chunks.append(chunk)
            unit = Unit(number, first_read, digest, chunks, watch.share)
            n_bases = sum(each.n_bases for each in chunks)
            if unit.n_reads >= reading.unit_reads or n_bases >= reading.unit_bases:
                yield table_from_unit(unit)
                number, first_read, chunks = number + 1, first_read + unit.n_reads, []
    except WyrError as error:
        failure = table_from_error(error, damaged_inputs(error, watch), reading=True)
    if chunks:
        yield table_from_unit(Unit(number, first_read, digest, chunks, watch.share))
    if warnings:
        yield _row({"warnings": warnings})
    if failure is not None:
        yield failure


def enter_folder(folder: str) -> None:
    """Make names mean here what they mean where the command was typed, if that folder is here too."""
    with suppress(OSError):
        os.chdir(folder)


def table_from_unit(unit: Unit) -> pa.Table:
    """Return a unit as one row; see `unit_from_table`."""
    about = {
        "unit": unit.number,
        "first_read": unit.first_read,
        "digest": list(unit.digest),
        "share": unit.share,
        "chunks": [[chunk.source, chunk.first_record, chunk.place] for chunk in unit.chunks],
    }
    stream = pa.BufferOutputStream()
    more = [name for name in _OF_TEXTS if unit.chunks and getattr(unit.chunks[0], name) is not None]
    schema = pa.schema([*_CHUNK, *(pa.field(name, pa.int64()) for name in more)])
    with pa.ipc.new_stream(stream, schema) as writer:
        for chunk in unit.chunks:
            offsets, bases = np.ascontiguousarray(chunk.offsets), np.ascontiguousarray(chunk.bases)
            buffers = [None, pa.py_buffer(offsets), pa.py_buffer(bases)]
            reads = pa.Array.from_buffers(pa.large_binary(), len(chunk), buffers)
            columns = [
                chunk.ids,
                pa.array(chunk.mates, pa.int8()),
                reads,
                *(pa.array(getattr(chunk, name)) for name in more),
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    return _row(about, stream.getvalue())


def unit_from_table(table: pa.Table) -> Unit:
    """Return the unit that `table_from_unit` packed; its arrays are views of the table's."""
    about = about_from_table(table)
    content = table.column("reads")[0].as_buffer()
    chunks = []
    with pa.ipc.open_stream(content) as stream:
        for batch, (source, first_record, place) in zip(stream, about["chunks"], strict=True):
            reads = batch.column(2)
            _, offsets, bases = reads.buffers()
            ends = np.frombuffer(offsets, np.int64)[: len(reads) + 1]
            chunks.append(
                ReadChunk(
                    batch.column(0),
                    batch.column(1).to_numpy(),
                    np.frombuffer(bases or b"", np.uint8)[: ends[-1]],
                    ends,
                    source,
                    first_record,
                    place,
                    **{name: batch.column(name).to_numpy() for name in batch.schema.names if name in _OF_TEXTS},
                )
            )
    return Unit(about["unit"], about["first_read"], tuple(about["digest"]), chunks, about["share"])


def table_from_error(error: WyrError, damaged: Sequence[str] = (), reading: bool = False) -> pa.Table:
    """Return an error as one row; `error_from` gives it back.

    Args:
        damaged: the inputs whose damage it is.
        reading: the reader met it, after the units that it gave.
    """
    about = {"error": type(error).__name__, "fields": error.args, "damaged": list(damaged), "reading": reading}
    return _row(about)


def table_from_result(about: dict[str, Any]) -> pa.Table:
    """Return what a worker did with a unit as one row."""
    return _row(about)


def about_from_table(table: pa.Table) -> dict[str, Any]:
    """Return what a row says, without its reads.

    A unit, a result, an error (it has a key `error`), or what the reader has to say (`warnings`).
    """
    about: dict[str, Any] = json.loads(table.column("about")[0].as_py())
    return about


def error_from(about: Mapping[str, Any]) -> WyrError:
    """Return an error that travelled as a row."""
    kind: type[WyrError] = getattr(errors, about["error"])
    return kind(*about["fields"])


def _row(about: dict[str, Any], content: pa.Buffer | bytes = b"") -> pa.Table:
    length = len(content)
    reads = pa.Array.from_buffers(
        pa.large_binary(), 1, [None, pa.py_buffer(np.array([0, length], np.int64)), pa.py_buffer(content)]
    )
    return pa.table({"about": pa.array([json.dumps(about)], pa.large_string()), "reads": reads})
