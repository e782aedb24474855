"""Reading: every format and packing gives the same reads; damage is named after the reads before it."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pysam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zlib_ng import zlib_ng

from wyr_batch.errors import InputError, UsageError
from wyr_batch.reads import fastx
from wyr_batch.reads import source as bytesource
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.reads.open import Reads, open_reads

Read = tuple[str, str]  # id, bases

THREE: list[Read] = [("r1", "ACGTN"), ("r2", "acgtacgtgg"), ("r3", "TTGCA")]
BGZF_END_BYTES = 28


@pytest.fixture(params=[zlib, zlib_ng], ids=["zlib", "zlib-ng"])
def unpacker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gzip with the standard library, and with what is taken where it is installed."""
    monkeypatch.setattr(bytesource, "_zlib", request.param)


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


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def _write(data: bytes, name: str = "x") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return _write


Write = Callable[..., Path]


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


# ---- the same reads whatever holds them


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


def pieces(*parts: str) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from([*parts, "\n", "\r\n", "", " ", "\t", "1"]), max_size=20).map("".join)


@settings(max_examples=120, deadline=None)
@given(st.booleans(), st.data())
def test_any_text_gives_what_the_plain_parser_gives(is_fastq: bool, data: st.DataObject) -> None:
    fastq = ["@r x\nAC\n+\nII\n", "@r\n\n+\n\n", "@e", "AC", "+", "I"]
    record = fastq if is_fastq else [">r x\nAC\n", ">e", "AC"]
    text = record[0][0] + data.draw(pieces(*record, record[0], record[0]))
    want, whole = fastq_oracle(text) if is_fastq else fasta_oracle(text)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(text.encode())
        for block_bytes in (1, 9, 1 << 20):
            got, message = drain(Reads(path, block_bytes=block_bytes))
            assert (got, message is None) == (want, whole)
            assert message is None or f"x, record {len(want) + 1}" in re.sub(", read '[^']*'", "", message)


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


def test_a_long_record_is_not_parsed_once_a_block(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    parse = fastx.parse_fasta

    def counted(block: bytes, final: bool) -> fastx.Parsed:
        seen.append(len(block))
        return parse(block, final)

    monkeypatch.setattr("wyr_batch.reads.open.parse_fasta", counted)
    data = fasta_of([("long", "ACGT" * 50_000)], width=60)
    with Reads(write(data), block_bytes=64) as source:
        assert sum(map(len, source)) == 1
    assert sum(seen) < 5 * len(data)


def test_fasta_with_blanks_between_and_white_space_inside(write: Write) -> None:
    data = b"\n\n>a  x\nAC GT\t\n\n NN\n>empty\n>b\r\n\r\nacgt \r\n\n\n"
    for block_bytes in (1, 5, 64, 1 << 20):
        want = [("a", "ACGTNN"), ("empty", ""), ("b", "acgt")]
        assert drain(Reads(write(data), block_bytes=block_bytes)) == (want, None)


def test_blank_lines_at_the_end_of_fastq(write: Write) -> None:
    for blanks in (b"\n", b"\n\n\n", b"\n\n\n\n\n", b"\r\n\r\n", b" \n"):
        for block_bytes in (1, 8, 1 << 20):
            assert drain(Reads(write(fastq_of(THREE) + blanks), block_bytes=block_bytes)) == (THREE, None)
    got, message = drain(Reads(write(fastq_of(THREE) + b"\n" + fastq_of(THREE))))
    assert got == THREE
    assert "record 4, line 13: got an empty line, expected a header that starts with '@'." in str(message)


def test_headers_keep_mate_suffix_and_bytes_that_are_not_utf8(write: Write) -> None:
    data = b"@a/1 x\nAC\n+a/1 x\nII\n@\xffb\tx\nAC\n+\nII\n@\xc3\xa9 \xff\nA\n+\nI\n@\nA\n+\nI\n"
    want = [("a/1", "AC"), ("\\xffb", "AC"), ("é", "A"), ("", "A")]
    assert drain(open_reads(write(data))) == (want, None)


@pytest.mark.parametrize("data", [fastq_of(THREE), fasta_of(THREE), sam_of(THREE)])
def test_byte_order_mark_is_let_pass(data: bytes, write: Write) -> None:
    assert drain(open_reads(write(b"\xef\xbb\xbf" + data))) == (THREE, None)


def test_sam_without_header(write: Write) -> None:
    path = write(sam_of(THREE).split(b"\n", 1)[1])
    with open_reads(path) as reads:
        assert reads.format == "SAM"
    assert drain(open_reads(path)) == (THREE, None)


FLAGGED = [
    ("pair", "AACG", 0x45), ("pair", "AACGR", 0x95), ("single", "AACG", 0x44),
    ("second", "GGGG", 0x104), ("supplement", "GGGG", 0x814), ("back", "ACGTRYN", 0x14), ("none", "", 0x4),
]  # fmt: skip


@pytest.mark.parametrize("form", ["BAM", "SAM", "CRAM"])
def test_flags(form: str, write: Write) -> None:
    if form == "SAM":
        lines = [sam_of([(name, bases)], flag).split(b"\n", 1)[1] for name, bases, flag in FLAGGED]
        data = b"@HD\tVN:1.6\n" + b"".join(lines)
    else:
        data = bam_of(FLAGGED, "wb" if form == "BAM" else "wc")
    with open_reads(write(data)) as source:
        (chunk,) = source
        assert (source.format, source.n_skipped, source.n_reads) == (form, 2, 5)
    want = [("pair", "AACG"), ("pair", "YCGTT"), ("single", "AACG"), ("back", "NRYACGT"), ("none", "")]
    assert reads_in(chunk) == want
    assert chunk.mates.tolist() == [1, 2, 0, 0, 0]


def test_more_alignments_than_a_batch(write: Write) -> None:
    reads = [(f"r{i}", "ACGT") for i in range(2500)]
    assert drain(open_reads(write(bam_of([(*read, 4) for read in reads])))) == (reads, None)
    assert drain(open_reads(write(bam_of([])))) == ([], None)


def test_sam_keeps_case_where_bam_cannot(write: Write) -> None:
    assert drain(open_reads(write(sam_of([("a", "acR=")], 0x10)))) == ([("a", "=Ygt")], None)


def test_pysam_is_as_loud_afterwards_and_says_nothing(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    before = pysam.set_verbosity(3)
    try:
        drain(open_reads(write(bam_of([("a", "ACGT", 4)])[:-40])))
        assert pysam.set_verbosity(3) == 3
    finally:
        pysam.set_verbosity(before)
    assert capfd.readouterr().err == ""


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


# ---- pipes


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


# ---- what cannot be opened


@pytest.mark.parametrize(
    ("data", "got", "advice"),
    [
        (b"\n \r\n\n", "nothing but blank lines", "Check the step"),
        (zstd_of(b"\n"), r"nothing but blank lines after unpacking \(zstd\)", "Check the step"),
        (bytes(range(128, 256)) * 9, "unknown data starting with '", "Check the step"),
        (b"hello\nworld\n", "text starting with 'hello'", "Check the step"),
        (b"ACGT\n>a\nACGT\n", "text starting with 'ACGT'", "Check the step"),
        (b"x" * 500, "text starting with 'x{60}'", "Check the step"),
        (bz2.compress(fastq_of(THREE)), "a bzip2 file", "Unpack it"),
        (b"\xfd7zXZ\0\0", "an xz file", "Unpack it"),
        (b"PK\x03\x04\n", "a zip file", "Unpack it"),
        (b"\x89HDF\r\n\x1a\n", r"an HDF5 file \(fast5\)", "basecaller"),
        (b"\x8bPOD\r\n\x1a\n", "a POD5 file", "basecaller"),
        (b"%PDF-1.4\n", "a PDF file", "Check"),
        (b"\n<!DOCTYPE html>\n", "a web page or XML", "address"),
        (gzip_of(gzip_of(fastq_of(THREE))), "a packed file inside a packed file", "Unpack it once"),
        (b"name" + b"\0" * 253 + b"ustar", "a tar archive", "Take the files"),
        ("@r1\n".encode("utf-16"), "UTF-16 text", "plain text"),
        (gzip_of(fastq_of(THREE))[:9], "the end of the file inside gzip data", "get it again"),
        (zstd_of(fastq_of(THREE))[:9], "damaged or cut zstd data", "get it again"),
    ],
)
def test_what_is_no_input(data: bytes, got: str, advice: str, write: Write) -> None:
    path = write(data)
    assert re.fullmatch(f"{re.escape(str(path))}: got {got}.*, expected .*{advice}.*", message_of(path))


def test_paths_that_cannot_be_opened(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    assert message_of(tmp_path / "no").startswith(f"{tmp_path / 'no'}: got no such file, expected reads in FASTQ")
    assert "got a folder, expected reads in" in message_of(tmp_path)

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refused)
    assert "x: got 'Permission denied' on opening, expected a readable file." in message_of(Path("x"))


# ---- damage


def whole_before(data: bytes, cut: int) -> tuple[int, bool]:
    """How many records are whole in the first `cut` bytes of FASTQ, and whether it cuts none."""
    ends = [match.end() for match in re.finditer(rb"@[^\n]*\n[^\n]*\n\+[^\n]*\nI*\n", data)]
    n = sum(end - 1 <= cut for end in ends)  # without its last newline a record is whole
    return n, n > 0 and cut in (ends[n - 1], ends[n - 1] - 1)


@pytest.mark.parametrize("block_bytes", [16, 1 << 20])
def test_fastq_cut_at_every_byte(block_bytes: int, write: Write) -> None:
    data = fastq_of(THREE, comment=" ch=1")
    for cut in range(1, len(data)):
        got, message = drain(Reads(write(data[:cut], "cut.fastq"), block_bytes=block_bytes))
        n, clean = whole_before(data, cut)
        assert got == THREE[:n]
        if clean:
            assert message is None
        else:
            assert f"record {n + 1}, line " in str(message)
            assert "get it again." in str(message)


def test_crlf_fastq_cut_at_every_byte(write: Write) -> None:
    data = fastq_of(THREE, newline="\r\n")
    for cut in range(1, len(data)):
        got, message = drain(open_reads(write(data[:cut])))
        assert got == THREE[: len(got)]
        n, clean = whole_before(data.replace(b"\r", b""), cut - data[:cut].count(b"\r"))
        assert (len(got), message is None) == (n, clean)


@pytest.mark.parametrize("pack", [gzip_of, bgzip_of, zstd_of])
@pytest.mark.parametrize("text_of", [fastq_of, fasta_of, sam_of])
def test_packed_text_cut_at_every_byte(
    pack: Callable[[bytes], bytes], text_of: Callable[[list[Read]], bytes], write: Write
) -> None:
    data = pack(text_of(THREE))
    # bgzip less its end marker is whole gzip: all reads are there, and that is let pass.
    whole = len(data) - BGZF_END_BYTES if pack is bgzip_of else len(data)
    for cut in range(1, len(data)):
        try:
            got, message = drain(Reads(write(data[:cut]), block_bytes=32))
        except InputError:
            continue  # nothing could be unpacked
        assert got == THREE[: len(got)]
        assert (message is None) == (cut == whole)


def test_reads_before_a_cut_are_all_given(write: Write) -> None:
    rng = random.Random(2)
    reads = [(f"r{i}", "".join(rng.choices("ACGT", k=200))) for i in range(4000)]
    for pack in (gzip_of, bgzip_of, zstd_of):
        data = pack(fastq_of(reads))
        got, message = drain(open_reads(write(data[: len(data) * 3 // 4])))
        assert 2000 < len(got) < 4000
        assert got == reads[: len(got)]
        assert f"x, record {len(got) + 1}: got " in str(message)


def test_fasta_record_in_progress_is_not_given(write: Write) -> None:
    data = gzip_of(fasta_of(THREE))
    assert drain(open_reads(write(data[:-8])))[0] == THREE[:2]  # all unpacked, checksum missing
    assert drain(open_reads(write(data[:-8] + b"\0" * 8)))[0] == THREE[:2]


@pytest.mark.usefixtures("unpacker")
def test_gzip_damage(write: Write) -> None:
    data = gzip_of(fastq_of(THREE))
    wrong_sum = data[:-8] + struct.pack("<I", zlib.crc32(b"other")) + data[-4:]
    got, message = drain(open_reads(write(wrong_sum)))
    assert got == THREE
    assert "x, record 4: got damaged gzip data (Error -3 while decompressing data: incorrect data check)" in str(
        message
    )
    for junk in (b"junk", b"\x1f", b"\x1f\x8b\x08"):
        for block_bytes in (1, 1 << 20):
            got, message = drain(Reads(write(data + junk), block_bytes=block_bytes))
            assert got == THREE
            assert "record 4: got foreign bytes after" in str(message) or "inside gzip data" in str(message)
    for block_bytes in (1, 1 << 20):
        padded = data + b"\0" * 700
        assert drain(Reads(write(padded), block_bytes=block_bytes)) == (THREE, None)
        assert drain(Reads(write(padded + data), block_bytes=block_bytes)) == (THREE * 2, None)


@pytest.mark.usefixtures("unpacker")
def test_no_read_of_a_bgzip_block_whose_checksum_is_wrong_is_given(write: Write) -> None:
    """A base exchanged for another in stored (not compressed) blocks: nothing but the checksum can tell."""
    blocks = []
    for i in range(5):
        packer = zlib.compressobj(0, wbits=-15)
        text = fastq_of([(f"b{i}.{j}", "ACGT" * 20) for j in range(10)])
        packed = packer.compress(text) + packer.flush()
        size = struct.pack("<H", len(packed) + 25)
        head = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff\x06\x00BC\x02\x00" + size
        blocks.append(head + packed + struct.pack("<II", zlib.crc32(text), len(text)))
    blocks[3] = blocks[3].replace(b"ACGT", b"ACTT", 1)
    got, message = drain(open_reads(write(b"".join(blocks))))
    assert [name for name, _ in got] == [f"b{i}.{j}" for i in range(3) for j in range(10)]
    assert "damaged gzip data" in str(message)


def test_broken_deflate_block_keeps_what_came_before_it(write: Write) -> None:
    rng = random.Random(3)
    reads = [(f"r{i}", "".join(rng.choices("ACGT", k=100))) for i in range(500)]
    packer = zlib.compressobj(wbits=31)
    good = packer.compress(fastq_of(reads)) + packer.flush(zlib.Z_FULL_FLUSH)
    got, message = drain(open_reads(write(good + b"\x07" * 50)))  # block type 3 does not exist
    assert got == reads
    assert "record 501: got damaged gzip data (Error -3 while decompressing data: invalid block type" in str(message)


@pytest.mark.usefixtures("unpacker")
def test_a_flipped_bit_anywhere_in_gzip_is_seen(write: Write) -> None:
    data = gzip_of(fastq_of(THREE))
    for at in range(10, len(data)):  # after the header, whose bytes carry no reads
        flipped = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
        try:
            _, message = drain(open_reads(write(flipped)))
        except InputError:
            continue
        assert message is not None


@pytest.mark.parametrize(
    ("record", "line", "message"),
    [
        (b"@b\nACGT\n+\nIII\n", 8, "got a quality line of 3 characters, expected 4 (the length of the "
         "sequence). The file is damaged or was cut; get it again."),
        (b"@b x\nAC\nGT\n+\nIIII\n", 7, "got 'GT', expected a line that starts with '+' after the sequence. "
         "FASTQ must have 4 lines a record: unfold multi-line records first"),
        (b"@b\nACGT\n\nIIII\n", 7, "got an empty line, expected a line that starts with '+'"),
        (b"@b\nAC\x00T\n+\nIIII\n", 6, r"got byte '\x00' (0x00) at place 3 of the sequence line"),
        (b"@b\nAC\xffT\n+\nIIII\n", 6, r"got byte '\xff' (0xff) at place 3 of the sequence line"),
        (b"@b\nAC T\n+\nIIII\n", 6, "got byte ' ' (0x20) at place 3 of"),
        (b"@b\nAC1T\n+\nIIII\n", 6, "got byte '1' (0x31) at place 3 of"),
        (b"@b\nACGT\n+\nI\x00II\n", 8, r"got byte '\x00' (0x00) as quality, expected characters '!' to '~'."),
        (b"b\nACGT\n+\nIIII\n", 5, "got 'b', expected a header that starts with '@'."),
        (b"x" * 5000 + b"\n\n\n\n", 5, "got '" + "x" * 95 + "...', expected a header"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("block_bytes", [8, 1 << 20])
def test_damaged_fastq(record: bytes, line: int, message: str, block_bytes: int, write: Write) -> None:
    data = fastq_of(THREE[:1]) + record + fastq_of(THREE[1:])
    got, said = drain(Reads(write(data), block_bytes=block_bytes, chunk_reads=1))
    assert got == THREE[:1]
    read = ", read 'b'" if record.startswith(b"@") else ""
    assert f"x{read}, record 2, line {line}: {message}" in str(said)


@pytest.mark.parametrize("block_bytes", [8, 1 << 20])
def test_damaged_fasta(block_bytes: int, write: Write) -> None:
    for line, place in ((b"AC\n GT>T", 4), (b"AC\nG\x01", 2), (b";note", 1), (b"AC \n10 ACGT", 1)):
        got, said = drain(Reads(write(b">a x\nAC GT\n>b y\n" + line + b"\n>c\nAC\n"), block_bytes=block_bytes))
        assert got == [("a", "ACGT")]
        number = 4 + line.count(b"\n")
        assert f"x, read 'b', record 2, line {number}: got byte " in str(said)
        assert f"at place {place} of the sequence line, expected letters, '*', '-' or '.'. " in str(said)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"r4\t4\t*\t0\t0", "read 'r4', record 4, line 5: got 5 tab-separated fields, expected at least 11"),
        (
            b"r4\tx\t*\t0\t0\t*\t*\t0\t0\tAC\tII",
            "record 4, line 5: got the flag 'x', expected a whole number",
        ),
        (
            b"r4\t4\t*\t0\t0\t*\t*\t0\t0\tACGT\tII",
            "line 5: got a quality of 2 characters, expected 4 (the length",
        ),
        (b"r4\t4\t*\t0\t0\t*\t*\t0\t0\tAC1T\t*", "line 5: got byte '1' (0x31) at place 3 of the sequence"),
    ],
)
def test_damaged_sam(line: bytes, message: str, write: Write) -> None:
    for block_bytes in (16, 1 << 20):
        got, said = drain(Reads(write(sam_of(THREE) + line + b"\n"), block_bytes=block_bytes))
        assert got == THREE
        assert message in str(said)


@pytest.mark.parametrize("form", ["BAM", "CRAM"])
def test_alignment_file_cut_anywhere(form: str, write: Write) -> None:
    reads = [(f"r{i}", "ACGT" * (i % 9)) for i in range(40)]
    data = bam_of([(*read, 4) for read in reads], "wb" if form == "BAM" else "wc")
    for cut in range(30, len(data), 7):
        try:
            got, message = drain(open_reads(write(data[:cut], "cut")))
        except InputError:
            continue
        assert got == reads[: len(got)]
        assert "cut, record " in str(message)


def test_bam_without_end_marker(write: Write) -> None:
    data = bam_of([(*read, 4) for read in THREE])
    got, message = drain(open_reads(write(data[:-BGZF_END_BYTES])))
    assert [name for name, _ in got] == ["r1", "r2", "r3"]
    assert "x, record 4: got the end of the file without the BGZF end marker, expected the marker. " in str(message)


def test_bam_record_cut_inside_whole_blocks(write: Write) -> None:
    data = gzip.decompress(bam_of([(*read, 4) for read in THREE]))
    got, message = drain(open_reads(write(bgzip_of(data[:-3]))))
    assert [name for name, _ in got] == ["r1", "r2"]
    assert "x, record 3: got an unreadable record (" in str(message)


def test_read_error_is_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(io.BytesIO):
        def read(self, n: int | None = -1) -> bytes:
            if data := super().read(min(n or 0, 40)):
                return data
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("wyr_batch.reads.open.open_file", lambda _: (Failing(fastq_of(THREE)), None))
    got, message = drain(open_reads("x"))
    assert got == THREE
    assert message == "x, record 4: got a read error (Input/output error), expected a readable file. " + bytesource.CUT
    monkeypatch.setattr("wyr_batch.reads.open.open_file", lambda _: (Failing(), None))
    assert (
        message_of(Path("x")) == "x: got a read error (Input/output error), expected a readable file. " + bytesource.CUT
    )


# ---- what the detector accepts, the parser reads or refuses by name


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


@pytest.mark.parametrize("caption", ["+", "+r1 x", "+r1 x ", "+ "])
def test_a_caption_may_repeat_the_header(caption: str, write: Write) -> None:
    data = f"@r1 x\nAC\n{caption}\nII\n@r2\nA\n+\nI\n"
    assert drain(open_reads(write(data.encode()))) == ([("r1", "AC"), ("r2", "A")], None)


@pytest.mark.parametrize("caption", ["+r2 x", "+r1", "+r1 y", "+x"])
def test_a_caption_of_another_read_is_refused(caption: str, write: Write) -> None:
    data = f"@r0\nAC\n+\nII\n@r1 x\nAC\n{caption}\nII\n"
    got, message = drain(open_reads(write(data.encode())))
    assert got == [("r0", "AC")]
    assert f"read 'r1', record 2, line 7: got '{caption}' after the sequence, expected '+' alone" in str(message)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("@HD\tVN:1.6\n@CO\n@CO  words\nr1{}", ["r1"]),
        ("@CO\n@r1{}", ["@r1"]),
        ("@HD\tVN:1.6\n@r1{}r2{}", ["@r1", "r2"]),
        ("@HD\tVN:1.6\nr1{}@CO{}@ab{}", ["r1", "@CO", "@ab"]),
        ("@r1{}", ["@r1"]),
        ("@SQ{}", ["@SQ"]),
    ],
)
def test_sam_lines_that_start_with_at(text: str, names: list[str], write: Write) -> None:
    fields = "\t4\t*\t0\t0\t*\t*\t0\t0\tACGT\tIIII\n"
    with open_reads(write(text.replace("{}", fields).encode())) as reads:
        assert reads.format == "SAM"
        assert [name for chunk in reads for name in chunk.ids.to_pylist()] == names


def test_a_fastq_read_that_is_called_like_a_header_of_sam(write: Write) -> None:
    for name in ("CO", "HD\tVN:1.6", "SQ x"):
        got, message = drain(open_reads(write(f"@{name}\nACGT\n+\nIIII\n".encode())))
        assert (got, message) == ([(name.split()[0], "ACGT")], None)


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


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "0 bytes, so no reads"),
        (gzip_of(b""), "0 bytes, so no reads"),
        (bam_of([]), "a BAM header and no records, so no reads"),
        (b"@HD\tVN:1.6\n", "a SAM header and no records, so no reads"),
        (b">p\nMKVLLFPEQIPLLLEEKFEEFPQ\n", "which proteins have"),
    ],
)
def test_what_a_user_should_know_of_a_file(data: bytes, said: str, write: Write) -> None:
    warnings: list[str] = []
    with Reads(write(data), warn=warnings.append) as reads:
        assert sum(map(len, reads)) == data.startswith(b">")
    assert len(warnings) == 1
    assert said in warnings[0]


@pytest.mark.parametrize("make", [bam_of, None])
def test_only_secondary_alignments_are_not_a_file_without_reads(make: object, write: Write) -> None:
    data = bam_of([("r1", "ACGT", 256)]) if make else sam_of(THREE, flag=2048)
    got, message = drain(open_reads(write(data)))
    assert got == []
    assert "secondary or supplementary alignments and nothing else" in str(message)


def test_a_zstd_window_that_needs_gigabytes_is_named(write: Write) -> None:
    block = fastq_of(THREE)
    header = b"\x28\xb5\x2f\xfd\x00" + bytes([(31 - 10) << 3])  # no checksum; a window of 2^31 bytes
    data = header + (1 | len(block) << 3).to_bytes(3, "little") + block
    assert "got zstd data with a window over 128 MiB" in message_of(write(data))
