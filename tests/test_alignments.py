"""SAM, BAM and CRAM: flags, mates and names; damage is named after the reads before it."""

from __future__ import annotations

import gzip
import subprocess
import sys

import pysam
import pytest
from read_files import (
    BGZF_END_BYTES,
    THREE,
    Write,
    bam_of,
    bgzip_of,
    drain,
    reads_in,
    sam_of,
)

from wyr_batch.errors import InputError
from wyr_batch.reads.open import Reads, open_reads


def test_only_bam_and_cram_need_pysam(write: Write) -> None:
    program = (
        "import sys; sys.modules['pysam'] = None\n"
        "from wyr_batch.reads.open import open_reads\n"
        "for chunk in open_reads(sys.argv[1]): print(len(chunk))"
    )
    for data, expected in (
        (b"@r\nACGT\n+\nIIII\n", "1"),
        (bam_of([(name, bases, 4) for name, bases in THREE]), "pip install 'wyr-batch[cpu]'"),
    ):
        done = subprocess.run([sys.executable, "-c", program, write(data)], capture_output=True, text=True)
        assert expected in done.stdout + done.stderr


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


def test_pysam_is_as_loud_afterwards_and_says_nothing(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    before = pysam.set_verbosity(3)
    try:
        drain(open_reads(write(bam_of([("a", "ACGT", 4)])[:-40])))
        assert pysam.set_verbosity(3) == 3
    finally:
        pysam.set_verbosity(before)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("make", [bam_of, None])
def test_only_secondary_alignments_are_not_a_file_without_reads(make: object, write: Write) -> None:
    data = bam_of([("r1", "ACGT", 256)]) if make else sam_of(THREE, flag=2048)
    got, message = drain(open_reads(write(data)))
    assert got == []
    assert "secondary or supplementary alignments and nothing else" in str(message)


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
