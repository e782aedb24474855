"""Every format and packing gives the same reads, from files and from pipes, in chunks that keep their limits."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from read_files import (
    THREE,
    Read,
    Write,
    bam_of,
    bgzip_of,
    drain,
    fasta_of,
    fasta_oracle,
    fastq_of,
    fastq_oracle,
    gzip_of,
    reads_in,
    sam_of,
    zstd_of,
)

from wyr_batch.errors import InputError, UsageError
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.reads.open import Reads, open_reads


def two_gzip_of(data: bytes) -> bytes:
    half = len(data) // 2
    return gzip_of(data[:half]) + gzip_of(data[half:])


PACK: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "plain": ("none", bytes),
    "gzip": ("gzip", gzip_of),
    "gzip of two members": ("gzip", two_gzip_of),
    "bgzip": ("bgzip", bgzip_of),
    "zstd": ("zstd", zstd_of),
    "zstd of two frames": ("zstd", lambda data: zstd_of(data[:9]) + zstd_of(data[9:])),
}


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("form", ["FASTQ", "FASTA", "SAM", "BAM", "CRAM"])
def test_format_and_packing_are_found_by_content(form: str, packing: str, write: Write) -> None:
    upper = [(name, bases.upper()) for name, bases in THREE]  # BAM keeps no case
    plain = {
        "FASTQ": fastq_of(upper, comment=" ch=4"),
        "FASTA": fasta_of(upper),
        "SAM": sam_of(upper),
        "BAM": gzip.decompress(bam_of([(*read, 4) for read in upper])),
        "CRAM": bam_of([(*read, 4) for read in upper], "wc"),
    }[form]
    compression, pack = PACK[packing]
    path = write(pack(plain), "name.says.nothing")
    with open_reads(path) as reads:
        assert (reads.format, reads.compression, reads.path) == (form, compression, str(path))
        chunks = list(reads)
        assert reads.compressed_bytes_read == reads.total_bytes == path.stat().st_size
    (chunk,) = chunks
    assert reads_in(chunk) == upper
    assert chunk.source == str(path)
    assert (chunk.ids.type, chunk.bases.dtype, chunk.offsets.dtype, chunk.mates.dtype) == (
        pa.string(), np.uint8, np.int64, np.int8,
    )  # fmt: skip
    assert chunk.lengths.tolist() == [5, 10, 5]
    assert (len(chunk), chunk.n_bases, chunk.mates.tolist()) == (3, 20, [0, 0, 0])


ids = st.text(st.sampled_from("abcXYZ019_:/-"), min_size=1, max_size=12)


sequences = st.text(st.sampled_from("ACGTacgtNnRYKMSWBDHVU*-."), max_size=70).filter(
    lambda bases: bases != "*"
)  # no bases in SAM


many_reads = st.lists(st.tuples(ids, sequences), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(many_reads, st.booleans(), st.booleans(), st.sampled_from([1, 2, 7, 64, 1 << 20]), st.integers(1, 5))
def test_reads_survive_every_text_format(
    reads: list[Read], crlf: bool, last_newline: bool, block_bytes: int, chunk_reads: int
) -> None:
    newline = "\r\n" if crlf else "\n"
    texts = [fastq_of(reads, newline, "\tx y"), fasta_of(reads, newline), sam_of(reads)]
    assert fastq_oracle(texts[0].decode()) == fasta_oracle(texts[1].decode()) == (reads, True)
    with tempfile.TemporaryDirectory() as folder:
        for text in texts:
            data = text if last_newline else text.removesuffix(b"\n").removesuffix(b"\r")
            for pack in (bytes, gzip_of, zstd_of):
                path = Path(folder) / "x"
                path.write_bytes(pack(data))
                source = Reads(path, block_bytes=block_bytes, chunk_reads=chunk_reads, chunk_bases=50)
                assert drain(source) == (reads, None)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(ids, st.text(st.sampled_from("ACGTNRYKM"), max_size=40)), max_size=8))
def test_reads_survive_bam(reads: list[Read]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(bam_of([(*read, 4) for read in reads]))
        assert drain(Reads(path, block_bytes=50, chunk_reads=3)) == (reads, None)


def test_chunks_do_not_depend_on_blocks_and_keep_both_limits(write: Write) -> None:
    rng = random.Random(5)
    reads = [(f"r{i}", "".join(rng.choices("ACGT", k=rng.choice([0, 1, 30, 99, 101, 250])))) for i in range(300)]
    for data in (fastq_of(reads), fasta_of(reads), bgzip_of(fastq_of(reads)), sam_of(reads)):
        path = write(data)
        cuts = []
        for block_bytes in (1, 64, 500, 1 << 20):
            with Reads(path, chunk_reads=4, chunk_bases=100, block_bytes=block_bytes) as source:
                chunks = list(source)
            assert [read for chunk in chunks for read in reads_in(chunk)] == reads
            cuts.append([len(chunk) for chunk in chunks])
        assert cuts.count(cuts[0]) == 4
        for chunk, following in pairwise(chunks):
            assert len(chunk) <= 4
            assert chunk.n_bases <= 100 or len(chunk) == 1
            assert len(chunk) == 4 or chunk.n_bases + following.lengths[0] > 100  # no chunk ends early


def test_many_tiny_reads(write: Write) -> None:
    reads = [(f"r{i}", "ACG"[: i % 4]) for i in range(20_000)]
    for data in (fastq_of(reads), fasta_of(reads)):
        with open_reads(write(data), chunk_reads=999) as source:
            chunks = list(source)
        assert [len(chunk) for chunk in chunks] == [999] * 20 + [20]
        assert [read for chunk in chunks for read in reads_in(chunk)] == reads


@pytest.mark.parametrize("block_bytes", [4096, 1 << 20])
def test_one_long_record_is_one_chunk(block_bytes: int, write: Write) -> None:
    bases = np.random.default_rng(1).choice(np.frombuffer(b"ACGTn", np.uint8), 3_000_000).tobytes().decode()
    reads = [("a", "AC"), ("long", bases), ("b", "GT")]
    for data in (fasta_of(reads, width=60), fastq_of(reads)):
        with Reads(write(data), chunk_bases=1_000_000, block_bytes=block_bytes) as source:
            chunks = list(source)
        assert [chunk.ids.to_pylist() for chunk in chunks] == [["a"], ["long"], ["b"]]
        assert chunks[1].bases.tobytes().decode() == bases


def test_chunk_from_sequences() -> None:
    chunk = ReadChunk.from_sequences(["ACGT", "", "nn"])
    assert reads_in(chunk) == [("read1", "ACGT"), ("read2", ""), ("read3", "nn")]
    assert (chunk.source, chunk.first_record, len(ReadChunk.from_sequences([]))) == ("<memory>", 1, 0)
    assert ReadChunk.from_sequences(["A"], ids=["x"]).ids.to_pylist() == ["x"]
    with pytest.raises(InputError, match=r"got 2 ids, expected 1\."):
        ReadChunk.from_sequences(["A"], ids=["x", "y"])
    with pytest.raises(InputError, match=r"sequence 2: got .* in 'é', expected letters"):
        ReadChunk.from_sequences(["A", "é"])


@pytest.mark.parametrize("limit", ["chunk_reads", "chunk_bases"])
def test_limits_below_one(limit: str) -> None:
    with pytest.raises(UsageError, match=f"{limit}: got 0, expected at least 1"):
        open_reads("x", **{limit: 0})


def test_names_that_are_not_utf8_are_alike_in_every_format(write: Write) -> None:
    raw, kept = b"a\xff\xc3\xa9b", "a\\xffeb"
    kept = raw.decode("utf-8", "backslashreplace")
    bam = gzip.decompress(bam_of([("PLACE", "ACGT", 4)])).replace(b"PLACE", raw)
    fields = b"\t4\t*\t0\t0\t*\t*\t0\t0\tACGT\tIIII\n"
    for data in (b">%s\nACGT\n" % raw, b"@%s\nACGT\n+\nIIII\n" % raw, raw + fields, bgzip_of(bam)):
        said: list[str] = []
        with Reads(write(data), warn=said.append) as reads:
            assert [reads_in(chunk) for chunk in reads] == [[(kept, "ACGT")]]
        assert len(said) == 1
        assert "not UTF-8" in said[0]


@given(
    before=st.text("\n \t\r", max_size=4),
    indent=st.sampled_from(["", " ", "\t", "  \t"]),
    newline=st.sampled_from(["\n", "\r\n", "\r", "\n\r", "\r\r\n"]),
    form=st.sampled_from(["FASTA", "FASTQ", "SAM"]),
    block_bytes=st.sampled_from([1, 7, 1 << 20]),
)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_leading_text_and_no_line_end_loses_a_read_in_silence(
    write: Write, before: str, indent: str, newline: str, form: str, block_bytes: int
) -> None:
    make = {"FASTA": fasta_of, "FASTQ": fastq_of, "SAM": sam_of}[form]
    lines = make(THREE).decode().splitlines()
    text = before + "".join(f"{indent if line[0] in '>@' else ''}{line}{newline}" for line in lines)
    try:
        got, message = drain(Reads(write(text.encode()), block_bytes=block_bytes))
    except InputError:
        return
    names = [(name.strip(), bases) for name, bases in got]
    assert names == THREE if message is None else names == THREE[: len(names)]


COUNT = """
import sys
from wyr_batch.reads.open import open_reads
with open_reads(sys.argv[1]) as reads:
    for chunk in reads:
        print(chunk.source, chunk.ids.to_pylist(), chunk.n_bases, reads.format, reads.total_bytes)
"""


@pytest.mark.parametrize("form", ["BAM", "FASTQ", "SAM"])
def test_stdin_pipe(form: str) -> None:
    bam = bam_of([(*read, 4) for read in THREE])
    data = {"BAM": bam, "FASTQ": gzip_of(fastq_of(THREE)), "SAM": sam_of(THREE)}[form]
    command = [sys.executable, "-W", "error", "-c", COUNT, "-"]
    folder = Path(__file__).parents[1]
    result = subprocess.run(command, input=data, capture_output=True, timeout=60, cwd=folder, check=False)
    assert result.stderr == b""
    assert result.stdout.decode() == f"<stdin> ['r1', 'r2', 'r3'] 20 {form} None\n"


@pytest.mark.parametrize("data", [bam_of([(*read, 4) for read in THREE]), zstd_of(fasta_of(THREE))])
def test_named_pipe(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(data,))
    writer.start()
    with open_reads(path) as reads:
        assert reads.total_bytes is None
        got = [read for chunk in reads for read in reads_in(chunk)]
    writer.join()
    assert got == [(name, bases.upper() if data[:1] == b"\x1f" else bases) for name, bases in THREE]


def test_bam_left_early_lets_go_of_its_thread(write: Write) -> None:
    before = threading.active_count()
    path = write(bam_of([(f"r{i}", "ACGT" * 200, 4) for i in range(5000)]))
    with open_reads(path, chunk_reads=10) as reads:
        assert len(next(reads)) == 10
    assert threading.active_count() == before
    with open_reads(path):
        pass  # not even started
    assert threading.active_count() == before
