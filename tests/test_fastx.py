"""FASTQ and FASTA: what the parsers take, and what they refuse by file, record and line."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from read_files import (
    THREE,
    Write,
    drain,
    fasta_of,
    fasta_oracle,
    fastq_of,
    fastq_oracle,
    sam_of,
)

from wyr_batch.reads import fastx
from wyr_batch.reads.open import Reads, open_reads


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


def test_a_fastq_read_that_is_called_like_a_header_of_sam(write: Write) -> None:
    for name in ("CO", "HD\tVN:1.6", "SQ x"):
        got, message = drain(open_reads(write(f"@{name}\nACGT\n+\nIIII\n".encode())))
        assert (got, message) == ([(name.split()[0], "ACGT")], None)


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
