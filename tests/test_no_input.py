"""What cannot be read says what it is and what to do; what can be read and is odd is a warning."""

from __future__ import annotations

import bz2
import io
import re
from pathlib import Path

import pytest
from read_files import (
    THREE,
    Write,
    bam_of,
    drain,
    fastq_of,
    gzip_of,
    message_of,
    zstd_of,
)

from wyr_batch.reads import source as bytesource
from wyr_batch.reads.open import Reads, open_reads


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
        (zstd_of(fastq_of(THREE))[:9], "the end of the file inside zstd data", "get it again"),
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
