"""What the parsers of text formats share: columns of reads, names as text, and what is wrong with a record.

A parser takes `(block, final)`. The block starts where a record starts; `final` says that the input ended well with it.
It returns every record that is surely whole, how many bytes those took, and, if the record after them is damaged, what
is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wyr_batch.reads.source import Problem

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
SHOWN_CHARACTERS = 100
_CONVERT = "Convert the line ends: tr '\\r' '\\n' < FILE > NEW_FILE."
LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SEQUENCE_BYTES = LETTERS + b"*-."


class Columns(NamedTuple):
    """Reads as columns.

    Attributes:
        ids: pa.string() [n].
        mates: int8 [n], 0 or 1/2.
        bases: uint8 [sum of lengths], ASCII; of texts UTF-8.
        lengths: int64 [n], in bytes.
        qualities: uint8 [sum of lengths], ASCII from `!` on; None unless they are asked for.
        letters, second: as in `ReadChunk`.
    """

    ids: pa.StringArray
    mates: npt.NDArray[np.int8]
    bases: Bytes
    lengths: Ints
    qualities: Bytes | None = None
    letters: Ints | None = None
    second: Ints | None = None


@dataclass(frozen=True, slots=True)
class Parsed:
    """What one block gave; `n_lines` and `n_bytes` belong to good, skipped or blank records only."""

    columns: Columns
    n_bytes: int
    n_lines: int
    n_skipped: int = 0
    n_escaped: int = 0  # names with bytes that are no UTF-8
    problem: Problem | None = None


Parser = Callable[[bytes, bool], Parsed]


def shown(text: bytes | str) -> str:
    """Quote foreign text for a message, at most 100 characters of it."""
    try:
        quoted = repr(text if isinstance(text, str) else text.decode())
    except UnicodeDecodeError:
        quoted = repr(text)[1:]  # without the b
    return quoted if len(quoted) <= SHOWN_CHARACTERS else quoted[: SHOWN_CHARACTERS - 4] + "...'"


def name_from(raw: bytes) -> str:
    """Return a read's name as text; bytes that are no UTF-8 become \\xNN, so that no two names become one."""
    return raw.decode("utf-8", "backslashreplace")


def stray_cr_problem(text: bytes, line: int) -> Problem:
    got = f"a carriage return inside the line {shown(text)}"
    return Problem(None, line, got, "lines that end in LF or CR LF", _CONVERT)


def no_qualities(read_id: str | None, line: int = -1) -> Problem:
    """What is wrong with a read whose qualities are asked for."""
    return Problem(read_id, line, "no qualities", "one a base", "Convert to FASTA instead.")


def offsets_from(lengths: Ints) -> Ints:
    """[0, sum of the first, of the first two, ...], int64 [n + 1]."""
    return np.append(np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64))


def is_escaped(raw: bytes) -> bool:
    return not raw.isascii() and raw.decode("utf-8", "ignore").encode() != raw


def strings(names: list[str]) -> pa.StringArray:
    return pa.array(names, pa.string())


def base_problem(read_id: str, line: int, sequence: bytes, allowed: bytes = SEQUENCE_BYTES) -> Problem:
    """The first byte of a sequence that may not stand there."""
    at = next(i for i, byte in enumerate(sequence) if byte not in allowed)
    got = f"byte {shown(sequence[at : at + 1])} (0x{sequence[at]:02x}) at place {at + 1} of the sequence line"
    return Problem(read_id, line, got, "letters, '*', '-' or '.'")
