"""Which format an input of texts is in: by content, and by the name where content cannot tell."""

from __future__ import annotations

import json
import re

from wyr_batch.errors import InputError
from wyr_batch.reads.formats import EMPTY, NOT_UNPACKED, UTF_16
from wyr_batch.reads.source import ByteSource, DamagedStream
from wyr_batch.texts.arrow import ARROW_FILE, ARROW_STREAM

TEXT, CSV, TSV, JSONL, PARQUET, ARROW = "plain text", "CSV", "TSV", "JSONL", "Parquet", "Arrow"
EXPECTED = (
    "texts as lines, CSV, TSV or JSONL, plain or packed with gzip, bgzip or zstd, as Parquet, "
    "or a folder that datasets' save_to_disk wrote"
)

_HEAD_BYTES = 1 << 20
_PACKED = (".gz", ".bgz", ".bgzip", ".zst", ".zstd")
_BY_NAME = {
    **dict.fromkeys((".txt", ".text"), TEXT),
    **dict.fromkeys((".csv",), CSV),
    **dict.fromkeys((".tsv", ".tab"), TSV),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), JSONL),
}
_UTF8_BOM = b"\xef\xbb\xbf"
_KNOWN = [
    *NOT_UNPACKED,
    *UTF_16,
    (rb"BAM\x01|CRAM[\x01-\x04]", "a file of reads", "Give texts, or a model that reads are for: -m."),
    (rb"\x89HDF", "an HDF5 file", "Write its texts as Parquet."),
    (rb"%PDF", "a PDF file", "Take the text out of it."),
]


def detect_format(source: ByteSource, path: str, name: str, wants_columns: bool) -> str:
    """Return TEXT, CSV, TSV, JSONL, PARQUET or ARROW, or `reads.formats.EMPTY` for 0 bytes.

    The bytes looked at are put back, without a byte order mark.

    Args:
        path: as given, `-` for standard input; name: the same for messages.
        wants_columns: columns are asked for by name, so what is no JSONL and has no telling name is CSV or TSV.
    Raises: InputError saying what it looks like instead.
    """
    head = b""
    try:
        while b"\n" not in head.lstrip() and len(head) < _HEAD_BYTES and (more := source.read(len(head) or 1)):
            head += more
    except DamagedStream as damage:
        if not head:
            problem = damage.problem
            raise InputError(name, problem.got, problem.expected, problem.advice) from None
    if not head:
        return EMPTY
    source.put_back(head.removeprefix(_UTF8_BOM))
    is_parquet = head.startswith(b"PAR1")
    if is_parquet or head.startswith((ARROW_FILE, ARROW_STREAM)):
        return PARQUET if is_parquet else ARROW
    for pattern, what, advice in _KNOWN:
        if re.match(pattern, head):
            raise InputError(name, what, EXPECTED, advice)
    found = _by_text(head.removeprefix(_UTF8_BOM), _suffix(path), wants_columns)
    if found == TEXT and wants_columns:
        raise InputError(name, "a plain text", "a table with the named columns", "Leave the options of columns out.")
    return found


def _by_text(head: bytes, suffix: str, wants_columns: bool) -> str:
    by_name = _BY_NAME.get(suffix)
    first = head.lstrip().partition(b"\n")[0]
    if by_name == JSONL or (first.startswith(b"{") and (by_name is None or _is_object(first))):
        return JSONL
    if by_name:
        return by_name
    if wants_columns:
        return TSV if b"\t" in first else CSV
    return TEXT


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _suffix(path: str) -> str:
    """Return what the name ends in, lower case, that of a packing aside."""
    name = path.lower()
    for packed in _PACKED:
        name = name.removesuffix(packed)
    return name[name.rfind(".") :] if "." in name else ""
