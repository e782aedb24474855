"""Reads as bytes of every format and packing, and what comes out when they are read."""

from __future__ import annotations

import gzip
import random
import re
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pysam
import pytest

from wyr_batch.errors import InputError
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.reads.open import Reads, open_reads

Read = tuple[str, str]  # id, bases
Write = Callable[..., Path]

THREE: list[Read] = [("r1", "ACGTN"), ("r2", "acgtacgtgg"), ("r3", "TTGCA")]
BGZF_END_BYTES = 28


def random_fastq(n: int, seed: int = 1, most_bp: int = 90) -> str:
    """Return seeded reads of up to so many bases, N and empty reads among them."""
    chosen = random.Random(seed)
    reads = ["".join(chosen.choices("ACGTN", [9, 9, 9, 9, 1], k=chosen.randint(0, most_bp))) for _ in range(n)]
    return fastq_of([(f"r{i}", bases) for i, bases in enumerate(reads)]).decode()


def fastq_of(reads: list[Read], newline: str = "\n", comment: str = "") -> bytes:
    text = "".join(f"@{name}{comment}\n{bases}\n+\n{'I' * len(bases)}\n" for name, bases in reads)
    return text.replace("\n", newline).encode()


def fasta_of(reads: list[Read], newline: str = "\n", width: int = 7) -> bytes:
    lines = []
    for name, bases in reads:
        lines += [f">{name} some words", *(bases[at : at + width] for at in range(0, len(bases), width))]
    return "".join(line + newline for line in lines).encode()


def sam_of(reads: list[Read], flag: int = 4) -> bytes:
    text = "@HD\tVN:1.6\n"
    for name, bases in reads:
        text += f"{name}\t{flag}\t*\t0\t0\t*\t*\t0\t0\t{bases or '*'}\t{'I' * len(bases) or '*'}\n"
    return text.encode()


def bam_of(reads: list[tuple[str, str, int]], mode: str = "wb") -> bytes:
    """BAM (or CRAM, `wc`) of (id, bases as stored, flag)."""
    header = pysam.AlignmentHeader.from_dict({"HD": {"VN": "1.6"}})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        with pysam.AlignmentFile(str(path), mode, header=header) as out:
            for name, bases, flag in reads:
                record = pysam.AlignedSegment(header)
                record.query_name, record.flag = name, flag
                record.query_sequence = bases or None
                record.query_qualities = pysam.qualitystring_to_array("I" * len(bases)) if bases else None
                out.write(record)
        return path.read_bytes()


def bgzip_of(data: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        with pysam.BGZFile(str(path), "wb") as out:
            out.write(data)
        return path.read_bytes()


def zstd_of(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


def gzip_of(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def reads_in(chunk: ReadChunk) -> list[Read]:
    bounds = pairwise(chunk.offsets.tolist())
    return [
        (name, chunk.bases[a:b].tobytes().decode()) for name, (a, b) in zip(chunk.ids.to_pylist(), bounds, strict=True)
    ]


def drain(reads: Reads) -> tuple[list[Read], str | None]:
    """All reads given, and the message that ended them."""
    got: list[Read] = []
    with reads:
        try:
            for chunk in reads:
                assert chunk.first_record == len(got) + 1
                got += reads_in(chunk)
        except InputError as error:
            return got, str(error)
        finally:
            assert (reads.n_reads, reads.n_bases) == (len(got), sum(len(bases) for _, bases in got))
    return got, None


def message_of(path: Path) -> str:
    """What opening says; it must say it before any chunk."""
    with pytest.raises(InputError) as caught:
        open_reads(path)
    return str(caught.value)


def lines_of(data: str) -> list[str]:
    lines = data.split("\n")
    return [line.removesuffix("\r") for line in (lines if lines[-1] else lines[:-1])]


def name_of(header: str) -> str:
    return header[1:].replace("\t", " ").split(" ")[0]


def fastq_oracle(data: str) -> tuple[list[Read], bool]:
    """The good reads of FASTQ, and whether that is all there is; slow and plain."""
    lines = lines_of(data) + [""] * data.endswith("\n")  # the last line may be an empty quality
    got: list[Read] = []
    for at in range(0, len(lines), 4):
        if not "".join(lines[at:]).strip():
            break
        record = lines[at : at + 4]
        if len(record) < 4 or record[0][:1] + record[2][:1] != "@+" or len(record[1]) != len(record[3]):
            return got, False
        if not re.fullmatch(r"[A-Za-z*.-]*", record[1]) or not re.fullmatch("[!-~]*", record[3]):
            return got, False
        if "\r" in record[0] or (record[2][1:].strip() and record[2][1:].rstrip() != record[0][1:].rstrip()):
            return got, False
        got.append((name_of(record[0]), record[1]))
    return got, True


def fasta_oracle(data: str) -> tuple[list[Read], bool]:
    """The same for FASTA."""
    got: list[Read] = []
    for line in lines_of(data):
        if line.lstrip(" \t").startswith(">"):
            if "\r" in line:
                return got, False
            got.append((name_of(line.lstrip(" \t")), ""))
        elif bases := re.sub(r"[ \t\r]", "", line):
            if not re.fullmatch(r"[A-Za-z*.-]*", bases):
                return got[:-1], False
            got[-1] = (got[-1][0], got[-1][1] + bases)
    return got, True
