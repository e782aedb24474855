"""SAM as text: lines to columns of reads, reverse strands turned back, other than primary alignments skipped."""

from __future__ import annotations

import re

import numpy as np

from wyr_batch.reads.records import (
    LETTERS,
    Columns,
    Parsed,
    base_problem,
    is_escaped,
    name_from,
    no_qualities,
    shown,
    stray_cr_problem,
    strings,
)
from wyr_batch.reads.source import Problem

_COMPLEMENT = bytes.maketrans(b"ACGTUMRYKVHDBacgtumrykvhdb", b"TGCAAKYRMBDHVtgcaakyrmbdhv")
# Name, flag, reference, place, quality, four more, sequence, quality.
SAM_ALIGNMENT = rb"[^\t\n]+\t\d+\t[^\t\n]+\t\d+\t\d+\t([^\t\n]+\t){4}[^\t\n]+(\t[^\t\n]|$)"


_SAM_FIELDS, _REVERSE, _NOT_PRIMARY = 11, 0x10, 0x100 | 0x800


def mate_from_flag(flag: int) -> int:
    """1 or 2 for the first or second read of a pair, 0 if unpaired or if the flag says both or neither."""
    return {0x41: 1, 0x81: 2}.get(flag & 0xC1, 0)


def parse_sam(block: bytes, final: bool, qualities: bool = False) -> Parsed:
    """Parse SAM lines; reverse-strand reads are turned back, other than primary lines are skipped.

    Args:
        qualities: keep them; a read without is then a problem.
    """
    end = len(block) if final else block.rfind(b"\n") + 1
    names: list[str] = []
    mates: list[int] = []
    sequences: list[bytes] = []
    kept: list[bytes] = []
    n_lines = n_bytes = n_skipped = n_escaped = 0
    problem = None
    for line in _split_lines(block[:end]):
        text = line.removesuffix(b"\r")
        if b"\r" in text:
            problem = stray_cr_problem(text, n_lines)
            break
        if text and not is_sam_header(text):
            fields = text.split(b"\t", _SAM_FIELDS)
            if problem := _sam_problem(fields, n_lines):
                break
            flag = int(fields[1])
            if flag & _NOT_PRIMARY:
                n_skipped += 1
            else:
                sequence = b"" if fields[9] == b"*" else fields[9]
                if qualities:
                    if sequence and fields[10] == b"*":
                        problem = no_qualities(name_from(fields[0]), n_lines)
                        break
                    quality = fields[10] if sequence else b""
                    kept.append(quality[::-1] if flag & _REVERSE else quality)
                names.append(name_from(fields[0]))
                n_escaped += is_escaped(fields[0])
                mates.append(mate_from_flag(flag))
                sequences.append(sequence.translate(_COMPLEMENT)[::-1] if flag & _REVERSE else sequence)
        n_lines += 1
        n_bytes += len(line) + 1
    lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
    bases = np.frombuffer(b"".join(sequences), np.uint8)
    joined = np.frombuffer(b"".join(kept), np.uint8) if qualities else None
    columns = Columns(strings(names), np.array(mates, np.int8), bases, lengths, joined)
    return Parsed(columns, min(n_bytes, end), n_lines, n_skipped, n_escaped, problem)


def _split_lines(block: bytes) -> list[bytes]:
    """Return the lines without their newlines; unlike bytes.splitlines, a carriage return ends none."""
    lines = block.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


def is_sam_header(line: bytes) -> bool:
    """True for a header line (two letters after the @), but not for an alignment whose name looks like one."""
    if line[:1] != b"@" or re.match(rb"@[A-Za-z][A-Za-z](\s|$)", line) is None:
        return False
    return re.match(SAM_ALIGNMENT, line) is None


def _sam_problem(fields: list[bytes], line: int) -> Problem | None:
    """What is wrong with a SAM line, if anything."""
    name = name_from(fields[0]) if len(fields) > 1 else None
    if len(fields) < _SAM_FIELDS:
        return Problem(name, line, f"{len(fields)} tab-separated fields", f"at least {_SAM_FIELDS} in a SAM line")
    if not fields[1].isdigit():
        return Problem(name, line, f"the flag {shown(fields[1])}", "a whole number")
    sequence, quality = b"" if fields[9] == b"*" else fields[9], fields[10]
    if sequence.translate(None, LETTERS + b"=.*-"):
        return base_problem(name_from(fields[0]), line, sequence, LETTERS + b"=.*-")
    if quality != b"*" and len(quality) != len(sequence):
        got = f"a quality of {len(quality)} characters"
        return Problem(name, line, got, f"{len(sequence)} (the length of the sequence)")
    return None
