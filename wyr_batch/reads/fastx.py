"""FASTQ and FASTA: parsers of blocks of bytes (records.py) that make no Python object per read.

numpy finds the lines, Arrow copies them together. Not handled: FASTQ of more than 4 lines a record, `;` comments in
FASTA.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from wyr_batch.reads.records import (
    SEQUENCE_BYTES,
    Bytes,
    Columns,
    Ints,
    Parsed,
    base_problem,
    is_escaped,
    name_from,
    offsets_from,
    shown,
    stray_cr_problem,
    strings,
)
from wyr_batch.reads.source import Problem

MULTI_LINE = (
    "FASTQ must have 4 lines a record: unfold multi-line records first (seqtk seq reads.fastq); "
    "else the file is damaged, get it again."
)

_NEWLINE, _CR, _AT, _PLUS, _GT = b"\n\r@+>"
_WHITE_SPACE = b" \t\r\v\f"
_QUALITY = bytes(range(33, 127))


def gather(data: Bytes, starts: Ints, ends: Ints) -> Bytes:
    """Copy slices of a block together.

    Args:
        data: uint8 [n_bytes].
        starts, ends: int64 [n], half-open, ascending and not overlapping.
    Returns: uint8 [sum of ends - starts].
    """
    n_bytes = int((ends - starts).sum())
    if n_bytes == 0:
        return np.empty(0, np.uint8)
    # Slices and the gaps between them are one Arrow list of strings; to take every second is a memcpy each.
    bounds = np.stack([starts, ends], axis=1).ravel().astype(np.int64, copy=False)
    strings = pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(bounds) - 1, [None, pa.py_buffer(bounds), pa.py_buffer(data)]
    )
    taken = strings.take(pa.array(np.arange(0, len(bounds) - 1, 2)))
    return np.frombuffer(taken.buffers()[2], np.uint8, n_bytes)


def parse_fastq(block: bytes, final: bool, qualities: bool = False) -> Parsed:
    """Parse 4-line FASTQ; blank lines are let pass at the very end only. `qualities`: keep them."""
    data = np.frombuffer(block, np.uint8)
    starts, ends = _lines(data, final)
    if final and block.endswith(b"\n") and len(starts) % 4 == 3:  # an empty quality line without its newline
        starts, ends = np.append(starts, len(data)), np.append(ends, len(data))
    n = len(starts) // 4
    starts, ends, left = starts[: 4 * n].reshape(n, 4), ends[: 4 * n].reshape(n, 4), len(starts) % 4
    line_ends = _without_cr(data, starts, ends)
    lengths = line_ends - starts
    bad = (data[starts[:, 0]] != _AT) | (lengths[:, 1] != lengths[:, 3])
    bad |= data[starts[:, 2]] != _PLUS
    bad[_with_stray_cr(data, starts[:, 0], line_ends[:, 0])] = True
    n_good = _first(bad)
    n_good = _first_other_caption(data, starts[:n_good], line_ends[:n_good])
    bases = gather(data, starts[:n_good, 1], line_ends[:n_good, 1])
    offsets = offsets_from(lengths[:n_good, 1])
    kept = gather(data, starts[:n_good, 3], line_ends[:n_good, 3])
    wrong = min(_first(_not_letters(bases)), _first((kept - 33) > 93))  # uint8 wraps below 33
    if wrong < len(bases):
        n_good = int(np.searchsorted(offsets, wrong, "right")) - 1
    n_bytes = min(int(ends[n_good - 1, 3]) + 1, len(data)) if n_good else 0
    ids, n_escaped = _ids(data, starts[:n_good, 0] + 1, line_ends[:n_good, 0])
    columns = _columns(ids, bases[: offsets[n_good]], lengths[:n_good, 1])
    columns = columns._replace(qualities=kept[: offsets[n_good]] if qualities else None)
    problem = None
    if (n_good < n or (final and left)) and (rest := block[n_bytes:]).strip():
        problem = _fastq_problem(rest.split(b"\n", 4)[:4], 4 * n_good)
    n_taken = len(block) if final and not problem else n_bytes
    return Parsed(columns, n_taken, 4 * n_good, n_escaped=n_escaped, problem=problem)


def _first_other_caption(data: Bytes, starts: Ints, ends: Ints) -> int:
    """Return the first record whose `+` line repeats another header than its own, or the number of records.

    The line may be a bare `+`. Source: Cock et al. 2010 (doi 10.1093/nar/gkp1137): if repeated, it must be the same.
    """
    given = np.flatnonzero(ends[:, 2] - starts[:, 2] > 1)
    if not len(given):
        return len(starts)
    lengths = ends[given] - starts[given]
    other = lengths[:, 0] != lengths[:, 2]
    same = given[~other]
    headers, captions = (gather(data, starts[same, line] + 1, ends[same, line]) for line in (0, 2))
    if (differ := np.flatnonzero(headers != captions)).size:
        offsets = offsets_from(lengths[~other, 0] - 1)
        other[np.flatnonzero(~other)[np.unique(np.searchsorted(offsets, differ, "right") - 1)]] = True
    for record in given[other]:  # white space at the end does not count
        header, caption = (data[starts[record, line] + 1 : ends[record, line]].tobytes() for line in (0, 2))
        if caption.strip() and header.rstrip() != caption.rstrip():
            return int(record)
    return len(starts)


def parse_fasta(block: bytes, final: bool) -> Parsed:
    """Parse FASTA; unless `final`, the last record is left for the next block, for it may go on there."""
    data = np.frombuffer(block, np.uint8)
    starts, ends = _lines(data, True)
    _skip_white_before_headers(block, data, starts, ends)
    is_header = data[starts] == _GT
    headers = np.flatnonzero(is_header)
    if problem := _before_first_header(block, starts, ends, int(headers[0]) if len(headers) else len(starts)):
        return Parsed(_columns(strings([]), data[:0], np.empty(0, np.int64)), 0, 0, problem=problem)
    # Where the records that are surely whole end: at the last header, or at one that is damaged.
    n_lines = len(starts) if final or not len(headers) else int(headers[-1])
    problem = None
    if len(stray := _with_stray_cr(data, starts[headers], _without_cr(data, starts[headers], ends[headers]))):
        n_lines = int(headers[stray[0]])
        problem = stray_cr_problem(block[starts[n_lines] : ends[n_lines]], n_lines)
    headers = headers[headers < n_lines]
    n_bytes = int(starts[n_lines]) if n_lines < len(starts) else len(data)
    if not len(headers):
        n_bytes = n_bytes if final else 0
        return Parsed(_columns(strings([]), data[:0], np.empty(0, np.int64)), n_bytes, 0, problem=problem)
    first = int(headers[0])  # what stands before is blank
    starts, ends, is_header = starts[first:n_lines], ends[first:n_lines], is_header[first:n_lines]
    headers = headers - first
    ends = _without_cr(data, starts, ends)
    bases = gather(data, starts[~is_header], ends[~is_header])
    line_offsets = offsets_from(np.where(is_header, 0, ends - starts))
    offsets = line_offsets[np.append(headers, len(starts))]
    n_good = len(headers)
    odd = np.flatnonzero(_not_letters(bases))
    if len(odd):
        white = np.isin(bases[odd], np.frombuffer(_WHITE_SPACE, np.uint8))
        foreign = odd[~white]
        if len(foreign):
            n_good = int(np.searchsorted(offsets, foreign[0], "right")) - 1
            line = int(np.searchsorted(line_offsets, foreign[0], "right")) - 1
            text = block[starts[line] : ends[line]]
            bad = headers[n_good : n_good + 1]
            name = _ids(data, starts[bad] + 1, ends[bad])[0][0].as_py()
            problem = base_problem(name, first + line, text, SEQUENCE_BYTES + _WHITE_SPACE)
            n_lines, n_bytes = first + int(bad[0]), int(starts[bad[0]])
        spaces = odd[white]
        spaces = spaces[spaces < offsets[n_good]]
        bases = np.delete(bases[: offsets[n_good]], spaces)
        offsets = offsets[: n_good + 1] - np.searchsorted(spaces, offsets[: n_good + 1])
    good = headers[:n_good]
    ids, n_escaped = _ids(data, starts[good] + 1, ends[good])
    columns = _columns(ids, bases[: offsets[n_good]], np.diff(offsets[: n_good + 1]))
    return Parsed(columns, n_bytes, n_lines, n_escaped=n_escaped, problem=problem)


def _skip_white_before_headers(block: bytes, data: Bytes, starts: Ints, ends: Ints) -> None:
    """Move the start of each line that holds an indented header to its `>`; other lines stay as they are."""
    for line in np.flatnonzero(np.isin(data[starts], np.frombuffer(b" \t\v\f", np.uint8))).tolist():
        text = block[starts[line] : ends[line]]
        if (bare := text.lstrip()).startswith(b">"):
            starts[line] += len(text) - len(bare)


def _before_first_header(block: bytes, starts: Ints, ends: Ints, n_lines: int) -> Problem | None:
    """What is wrong with the lines before the first header, which may only be blank."""
    for line in range(n_lines):
        if block[starts[line] : ends[line]].strip():
            got = shown(block[starts[line] : ends[line]].rstrip(b"\r"))
            return Problem(None, line, got, "a header that starts with '>'")
    return None


def _with_stray_cr(data: Bytes, starts: Ints, ends: Ints) -> Ints:
    """Return which of these lines hold a carriage return before their end, int64."""
    returns = np.flatnonzero(data == _CR)
    if not len(returns) or not len(starts):
        return np.empty(0, np.int64)
    n_in_line: Ints = np.searchsorted(returns, ends) - np.searchsorted(returns, starts)
    return np.flatnonzero(n_in_line)


def _lines(data: Bytes, with_last: bool) -> tuple[Ints, Ints]:
    """Starts and ends (before the newline) of the lines; `with_last` takes one without newline too."""
    ends = np.flatnonzero(data == _NEWLINE)
    if with_last and len(data) and data[-1] != _NEWLINE:
        ends = np.append(ends, len(data))
    return np.append(np.zeros(1, np.int64), ends[:-1] + 1)[: len(ends)], ends


def _without_cr(data: Bytes, starts: Ints, ends: Ints) -> Ints:
    """Line ends moved before a carriage return."""
    if not len(data):
        return ends
    line_ends: Ints = ends - ((ends > starts) & (data[ends - 1] == _CR))
    return line_ends


def _first(mask: npt.NDArray[np.bool_]) -> int:
    """Index of the first True, or the length."""
    at = int(mask.argmax()) if len(mask) else 0
    return at if len(mask) and mask[at] else len(mask)


def _not_letters(bases: Bytes) -> npt.NDArray[np.bool_]:
    """True where a byte may not stand in a sequence."""
    odd: npt.NDArray[np.bool_] = ((bases | 0x20) - ord("a")) > 25  # uint8 wraps: all but ASCII letters
    if odd.any():
        odd &= ~np.isin(bases, np.frombuffer(b"*-.", np.uint8))
    return odd


def _ids(data: Bytes, starts: Ints, ends: Ints) -> tuple[pa.StringArray, int]:
    """Return headers up to the first space or tab, and how many have bytes that are no UTF-8."""
    text = gather(data, starts, ends)
    offsets = offsets_from(ends - starts)
    white = np.flatnonzero((text == ord(" ")) | (text == ord("\t")))
    if len(white):
        first = np.append(white, len(text))[np.searchsorted(white, offsets[:-1])]
        id_ends = np.minimum(first, offsets[1:])
        text, offsets = gather(text, offsets[:-1], id_ends), offsets_from(id_ends - offsets[:-1])
    if len(text) and text.max() > 127:  # not ASCII: one by one, for some may not be UTF-8
        raw = text.tobytes()
        names = [raw[a:b] for a, b in pairwise(offsets.tolist())]
        return strings([name_from(name) for name in names]), sum(map(is_escaped, names))
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(text)]
    return pa.StringArray.from_buffers(len(offsets) - 1, buffers[1], buffers[2]), 0


def _columns(ids: pa.StringArray, bases: Bytes, lengths: Ints) -> Columns:
    return Columns(ids, np.zeros(len(ids), np.int8), bases, lengths)


def _fastq_problem(record: list[bytes], line: int) -> Problem:
    """What is wrong with the 1 to 4 lines of a FASTQ record."""
    header, *rest = (text.removesuffix(b"\r") for text in record)
    if not header.startswith(b"@"):
        got = shown(header) if header else "an empty line"
        return Problem(None, line, got, "a header that starts with '@'", MULTI_LINE)
    if len(record) == 1:
        if b"\r" in header:
            return stray_cr_problem(header, line)
        return Problem(None, line, "the end of the file in a header", "the 4 lines of a record")
    if b"\r" in header:
        return stray_cr_problem(header, line)
    name = name_from(header[1:].replace(b"\t", b" ").partition(b" ")[0])
    sequence = rest[0]
    if sequence.translate(None, SEQUENCE_BYTES):
        return base_problem(name, line + 1, sequence)
    if len(rest) == 1 or (len(rest) == 2 and not rest[1]):
        return Problem(name, line + 1, "the end of the file after the sequence", "the 4 lines of a record")
    if not rest[1].startswith(b"+"):
        got = shown(rest[1]) if rest[1] else "an empty line"
        return Problem(name, line + 2, got, "a line that starts with '+' after the sequence", MULTI_LINE)
    if rest[1][1:].strip() and rest[1][1:].rstrip() != header[1:].rstrip():
        got = f"{shown(rest[1])} after the sequence"
        return Problem(name, line + 2, got, f"'+' alone, or with the header {shown(header[1:])}", MULTI_LINE)
    if len(rest) == 2:
        return Problem(name, line + 2, "the end of the file after the '+' line", "the 4 lines of a record")
    quality = rest[2]
    if len(quality) != len(sequence):
        got = f"a quality line of {len(quality)} characters"
        return Problem(name, line + 3, got, f"{len(sequence)} (the length of the sequence)")
    byte = quality.translate(None, _QUALITY)[:1]
    return Problem(name, line + 3, f"byte {shown(byte)} (0x{byte[0]:02x}) as quality", "characters '!' to '~'")
