"""Lines of UTF-8 text out of bytes of any packing; a plain text is a table of them."""

from __future__ import annotations

from collections.abc import Generator

import pyarrow as pa

from wyr_batch.reads.records import shown
from wyr_batch.reads.source import ByteSource, DamagedStream
from wyr_batch.texts.rows import BadRow, TextRows

_CONVERT = "Convert it: iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW_FILE, or with the encoding that it has."


class Lines:
    """Lines of an input.

    Attributes:
        n: given so far.
    """

    def __init__(self, source: ByteSource, block_bytes: int) -> None:
        self._source, self._block_bytes = source, block_bytes
        self.n = 0

    def blocks(self) -> Generator[list[str], None, None]:
        """Yield lines without their line feed, some at a time; a carriage return before it stays.

        Raises: BadRow after the last line before bytes that are no text, or that do not unpack.
        """
        rest = b""
        while True:
            damage = None
            try:
                # As much again as is waiting: a line over many blocks is then looked through twice, not n times.
                more = self._source.read(max(self._block_bytes, len(rest)))
            except DamagedStream as error:
                more, damage = b"", error.problem
            data = rest + more
            n_whole = data.rfind(b"\n") + 1 if more or damage else len(data)
            block, rest = data[:n_whole], data[n_whole:]
            if block:
                yield from self._decoded(block)
            if damage:
                raise BadRow(f"line {self.n + 1}", damage.got, damage.expected, damage.advice)
            if not more:
                return

    def _decoded(self, block: bytes) -> Generator[list[str], None, None]:
        bad = block.find(b"\0")
        n_good = bad if bad >= 0 else len(block)
        try:
            text = block[:n_good].decode()
        except UnicodeDecodeError as error:
            bad = error.start
        if bad >= 0:
            start = block.rfind(b"\n", 0, bad) + 1
            text = block[:start].decode()
        lines = text.split("\n")
        if not lines[-1]:
            lines.pop()
        if lines:
            self.n += len(lines)
            yield lines
        if bad >= 0:
            what = "a NUL byte" if block[bad] == 0 else f"byte 0x{block[bad]:02x}, which is not UTF-8,"
            line = block[start : block.find(b"\n", bad) if b"\n" in block[bad:] else len(block)]
            advice = {"advice": _CONVERT} if block[bad] else {}
            got = f"{what} at place {bad - start + 1} of {shown(line)}"
            raise BadRow(f"line {self.n + 1}", got, "UTF-8 text", **advice)


class PlainText:
    """A text a line; a blank line is an empty one."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def rows(self) -> Generator[TextRows, None, None]:
        """Yield the rows. Raises: BadRow after the last good one."""
        for lines in self._lines.blocks():
            yield TextRows(pa.array([line.removesuffix("\r") for line in lines], pa.large_string()))
