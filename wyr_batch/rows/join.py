"""Join Parquet files of one schema without decoding them: row groups are copied byte for byte, footers are merged.

A footer says where in the file each column of each row group lies. Joined, a file's row groups move by a constant, so
every such offset is shifted; all else in a footer is copied as it stands. A field that we do not know might be an
offset, and is refused. Source: Thrift's compact protocol and parquet.thrift of parquet-format 2.13. pyarrow reads,
merges and writes the shifted footers.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from wyr_batch.reads.source import crc32

_MAGIC = b"PAR1"
_TAIL_BYTES = 8  # length of the footer, magic
_COPY_BYTES = 1 << 24

_BOOLS, _BYTE, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = (1, 2), 3, 6, 7, 8, 9, 10, 11, 12
# Field numbers from the footer's root to every file offset: row group, its columns, their metadata and indexes.
_OFFSETS = {
    (4, 5),
    (4, 1, 2),
    (4, 1, 4),
    (4, 1, 6),
    (4, 1, 3, 9),
    (4, 1, 3, 10),
    (4, 1, 3, 11),
    (4, 1, 3, 14),
}

# Last field of each struct on the way to an offset.
_KNOWN_FIELDS = {(): 9, (4,): 7, (4, 1): 9, (4, 1, 3): 17}


class UnknownField(Exception):
    """A footer has a field that is newer than this module."""


class DamagedPart(Exception):
    """A file's data are not those that were written."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


class _Shifter:
    """Copies a Thrift struct, adding `shift` to the fields in `_OFFSETS` that are not 0."""

    def __init__(self, footer: bytes, shift: int) -> None:
        self._in, self._at, self._shift = footer, 0, shift
        self.out = bytearray()

    def copy_struct(self, path: tuple[int, ...] = ()) -> None:
        number = 0
        while True:
            start = self._at
            header = self._in[self._at]
            self._at += 1
            if header == 0:
                self.out.append(0)
                return
            delta, kind = header >> 4, header & 15
            number = number + delta if delta else _unzigzag(self._varint())
            if number > _KNOWN_FIELDS.get(path, number):
                raise UnknownField(f"field {'.'.join(map(str, (*path, number)))}")
            self.out += self._in[start : self._at]
            if kind not in _BOOLS:  # a boolean field has its value in its type
                self._copy_value(kind, (*path, number))

    def _copy_value(self, kind: int, path: tuple[int, ...]) -> None:
        start = self._at
        if kind == _STRUCT:
            self.copy_struct(path)
            return
        if kind in (_LIST, _SET):
            self._copy_list(path)
            return
        if kind == _MAP:
            raise ValueError("a map, which Parquet footers do not have")
        if kind in (*_BOOLS, _BYTE):
            self._at += 1
        elif kind == _DOUBLE:
            self._at += 8
        elif kind == _BINARY:
            n_bytes = self._varint()
            self._at += n_bytes
        else:
            value = _unzigzag(self._varint())
            if kind == _I64 and value and path in _OFFSETS:
                self.out += _varint_of(_zigzag(value + self._shift))
                return
        self.out += self._in[start : self._at]

    def _copy_list(self, path: tuple[int, ...]) -> None:
        start = self._at
        header = self._in[self._at]
        self._at += 1
        size = header >> 4
        if size == 15:
            size = self._varint()
        self.out += self._in[start : self._at]
        for _ in range(size):
            self._copy_value(header & 15, path)

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._in[self._at]
            self._at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7


def _varint_of(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else -(value << 1) - 1


def _unzigzag(value: int) -> int:
    return value >> 1 if not value & 1 else -(value >> 1) - 1


def shifted_footer(footer: bytes, shift: int) -> bytes:
    """Return a Parquet footer (Thrift FileMetaData, without its length) whose file offsets are `shift` larger."""
    shifter = _Shifter(footer, shift)
    shifter.copy_struct()
    return bytes(shifter.out)


def join_parquet(
    paths: Sequence[Path],
    out: BinaryIO,
    schema: pa.Schema,
    metadata: Mapping[str, Any],
    crc32s: Sequence[int | None] | None = None,
) -> int:
    """Write one Parquet file of the row groups of several, in order.

    Args:
        paths: files whose schema, metadata aside, is `schema`.
        schema: its metadata go into the file.
        metadata: more for its footer, each as JSON under its key with `wyr_` before it.
        crc32s: of each file's data, from behind its magic to its footer; None where it is not known.
    Returns: its rows.
    Raises: OSError, pa.ArrowInvalid, RuntimeError if a file is not whole or has another schema; DamagedPart;
        UnknownField.
    """
    merged = _empty_footer(schema, metadata)
    out.write(_MAGIC)
    for path, known in zip(paths, crc32s or [None] * len(paths), strict=True):
        with path.open("rb") as part:
            part.seek(-_TAIL_BYTES, os.SEEK_END)
            n_footer_bytes, magic = struct.unpack("<I4s", part.read(_TAIL_BYTES))
            if magic != _MAGIC:
                raise OSError(f"{path}: got {magic!r} at the end, expected PAR1")
            n_data_bytes = part.seek(-_TAIL_BYTES - n_footer_bytes, os.SEEK_END) - len(_MAGIC)
            footer = shifted_footer(part.read(n_footer_bytes), out.tell() - len(_MAGIC))
            merged.append_row_groups(_metadata_from(footer))
            part.seek(len(_MAGIC))
            found = _copy(part, out, n_data_bytes)
            if known is not None and found != known:
                raise DamagedPart(path)
    out.write(_footer_bytes(merged))
    return int(merged.num_rows)


def _empty_footer(schema: pa.Schema, metadata: Mapping[str, Any]) -> pq.FileMetaData:
    collected: list[pq.FileMetaData] = []
    with pq.ParquetWriter(pa.BufferOutputStream(), schema, metadata_collector=collected) as writer:
        writer.add_key_value_metadata({f"wyr_{key}": json.dumps(value) for key, value in metadata.items()})
    return collected[0]


def _metadata_from(footer: bytes) -> pq.FileMetaData:
    return pq.read_metadata(pa.BufferReader(_MAGIC + footer + struct.pack("<I", len(footer)) + _MAGIC))


def _footer_bytes(merged: pq.FileMetaData) -> bytes:
    file = pa.BufferOutputStream()
    merged.write_metadata_file(file)
    return bytes(file.getvalue().to_pybytes()[len(_MAGIC) :])


def _copy(source: BinaryIO, out: BinaryIO, n_bytes: int) -> int:
    """Copy bytes and return their checksum."""
    checksum = 0
    while n_bytes:
        block = source.read(min(n_bytes, _COPY_BYTES))
        if not block:
            raise OSError("the file became shorter while it was copied")
        checksum = crc32(block, checksum)
        out.write(block)
        n_bytes -= len(block)
    return checksum
