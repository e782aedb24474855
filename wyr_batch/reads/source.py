"""The bytes of an input, unpacked as they are read: plain, gzip, bgzip or zstd, by content.

What was unpacked before a damaged place is given before the damage is raised; of bgzip, whole blocks whose checksums
are right, so that no read is a wrong one. (The checksum of plain gzip stands at its end.)
"""

from __future__ import annotations

import os
import select
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO, NamedTuple

from wyr_batch.checks.files import reason_of, shown_path
from wyr_batch.errors import InputError

_zlib: Any = zlib
with suppress(ImportError):  # unpacks several times as fast
    from zlib_ng import zlib_ng

    _zlib = zlib_ng

crc32: Callable[[Any, int], int] = _zlib.crc32  # the values are those of zlib
CUT = "The file is damaged or was cut; get it again."
_LONG = "It needs more memory than reading should: zstd -dc --long=31 FILE | wyr-batch run - ..."
EXPECTED = "reads in FASTQ, FASTA, SAM, BAM or CRAM, plain or packed with gzip, bgzip or zstd"

_PACKED_BYTES = 1 << 17  # at a time: each gzip member in them costs a copy of those after it
_TAIL_BYTES = 64
_ZSTD_STEP_BYTES, _ZSTD_WINDOW_LOG = 1 << 12, 27
_ZSTD_MAGIC, _ZSTD_SKIPPABLE = b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"


class Problem(NamedTuple):
    """What is wrong with the first record that is not good; `line` counts from 0 in the block."""

    read_id: str | None
    line: int
    got: str
    expected: str
    advice: str = CUT


class DamagedStream(Exception):
    """Packed data that end too early or do not unpack."""

    def __init__(self, got: str, expected: str, advice: str = CUT) -> None:
        super().__init__(got)
        self.problem = Problem(None, -1, got, expected, advice)


class ByteSource:
    """Unpacked bytes of a file, which need not be seekable.

    Attributes:
        compression: none, gzip, bgzip or zstd.
        n_packed_bytes: taken from the file so far.
        tail: the last packed bytes taken, at most 64.
        damage: what ended the data early, if anything did.
    """

    def __init__(self, file: BinaryIO, block_bytes: int) -> None:
        self._file, self._block_bytes = file, block_bytes
        self.n_packed_bytes, self.tail = 0, b""
        self.damage: DamagedStream | None = None
        self._head = self._ahead = b""
        while len(self._head) < 18 and (more := self._from_file(18 - len(self._head))):
            self._head += more
        head = self._head
        self.compression = "none"
        if head[:2] == b"\x1f\x8b":
            self.compression = "bgzip" if head[3:4] == b"\x04" and head[12:14] == b"BC" else "gzip"
        elif head[:4] == _ZSTD_MAGIC or (head[:1] in b"PQRSTUVWXYZ[\\]^_" and head[1:4] == _ZSTD_SKIPPABLE):
            self.compression = "zstd"
        self._pieces = {"none": self._plain, "zstd": self._zstd}.get(self.compression, self._gzip)()

    def read(self, n_bytes: int) -> bytes:
        """Give at least n_bytes, fewer only at the end, none after it.

        Raises: DamagedStream in place of "none" if the data end in damage.
        """
        pieces = [self._ahead]
        n_missing = n_bytes - len(self._ahead)
        self._ahead = b""
        while n_missing > 0 and not self.damage:
            try:
                pieces.append(next(self._pieces))
            except StopIteration:
                break
            except DamagedStream as damage:
                self.damage = damage
            except OSError as error:
                self.damage = DamagedStream(f"a read error ({error.strerror or error})", "a readable file")
            n_missing -= len(pieces[-1])
        data = b"".join(pieces)
        if not data and self.damage:
            raise self.damage
        return data

    def put_back(self, data: bytes) -> None:
        """Give these bytes first on the next read."""
        self._ahead = data + self._ahead

    def _packed(self) -> bytes:
        head, self._head = self._head, b""
        return head or self._from_file(min(self._block_bytes, _PACKED_BYTES))

    def _from_file(self, n_bytes: int) -> bytes:
        data = self._file.read(n_bytes)
        while data is None:  # a stream that does not block has nothing yet
            select.select([self._file], [], [])
            data = self._file.read(n_bytes)
        self.n_packed_bytes += len(data)
        self.tail = (self.tail + data[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        return data

    def _plain(self) -> Iterator[bytes]:
        while data := self._packed():
            yield data

    def _gzip(self) -> Iterator[bytes]:
        member, n_members = None, 0
        is_bgzip = self.compression == "bgzip"
        held: list[bytes] = []  # of a bgzip block, until its checksum has been seen
        while data := self._packed():
            while data:
                if member is None:
                    data = data.lstrip(b"\0") if n_members else data  # zeros between members are padding
                    if not data:
                        break
                    if n_members and data[:1] != b"\x1f":
                        raise DamagedStream("foreign bytes after the gzip data", "the end of the file")
                    member = _zlib.decompressobj(wbits=31)
                saved = None if is_bgzip else member.copy()
                try:
                    held.append(member.decompress(data, self._block_bytes))
                except _zlib.error as error:
                    if saved is not None:
                        # zlib drops what the failed call had unpacked: unpack it again, byte by byte.
                        yield _until_error(saved, data)
                    raise DamagedStream(f"damaged gzip data ({error})", "data that unpack") from None
                if member.eof or not is_bgzip:
                    yield b"".join(held)
                    held.clear()
                data = member.unconsumed_tail or member.unused_data
                if member.eof:
                    member, n_members = None, n_members + 1
        if member is not None:
            yield b"".join(held) + member.flush()
            raise DamagedStream("the end of the file inside gzip data", "whole gzip data with their checksum")

    def _zstd(self) -> Iterator[bytes]:
        zstd = _import_zstd()
        options = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
        frame: Any = None
        while data := self._packed():
            # In small steps, since a call that fails keeps what it had unpacked.
            for start in range(0, len(data), _ZSTD_STEP_BYTES):
                piece = data[start : start + _ZSTD_STEP_BYTES]
                while piece or not (frame is None or frame.needs_input):
                    frame = frame or zstd.ZstdDecompressor(options=options)
                    try:
                        yield frame.decompress(piece, self._block_bytes)
                    except zstd.ZstdError as error:
                        if "too much memory" in str(error):
                            got = "zstd data with a window over 128 MiB"
                            raise DamagedStream(got, "one of at most that", _LONG) from None
                        raise DamagedStream(f"damaged zstd data ({error})", "data that unpack") from None
                    piece = frame.unused_data
                    frame = None if frame.eof else frame
        if frame is not None:
            raise DamagedStream("the end of the file inside zstd data", "whole zstd data")


def _import_zstd() -> Any:
    """Return Python's module for zstd, which is a package of its own before 3.14."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def _until_error(member: Any, packed: bytes) -> bytes:
    pieces = []
    for at in range(len(packed)):
        try:
            pieces.append(member.decompress(packed[at : at + 1]))
        except _zlib.error:
            break
    return b"".join(pieces)


def open_file(path: str, expected: str = EXPECTED) -> tuple[BinaryIO, int | None]:
    """Return the open file (`-` is stdin) and its size, None if it is not a regular file.

    Args:
        expected: what it should be, for messages.
    Raises: InputError.
    """
    if path == "-":
        return _open_stdin(expected), None
    name = shown_path(path)
    try:
        file = open(path, "rb", buffering=0)  # noqa: SIM115 (Reads closes it)
    except IsADirectoryError:
        raise InputError(name, "a folder", expected, "Give the files in it.") from None
    except FileNotFoundError:
        raise InputError(name, "no such file", expected, "Check the path.") from None
    except (OSError, ValueError) as error:
        got = reason_of(error)
        raise InputError(name, f"{got!r} on opening", "a readable file", "Check its rights.") from None
    status = os.fstat(file.fileno())
    return file, status.st_size if stat.S_ISREG(status.st_mode) else None


def _open_stdin(expected: str) -> BinaryIO:
    """Return standard input, unbuffered: a thread that waits in a buffered one holds its lock, and Python then dies."""
    if sys.stdin is None:
        raise InputError("<stdin>", "a closed standard input", expected, "Give it, or name a file.")
    try:
        return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
    except (OSError, ValueError):  # a stand-in without a file descriptor, or closed since
        pass
    if sys.stdin.closed:
        raise InputError("<stdin>", "a closed standard input", expected, "Give it, or name a file.")
    return sys.stdin.buffer
