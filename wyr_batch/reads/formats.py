"""Which format the first bytes of an input are in; what is none of ours is named where it can be."""

from __future__ import annotations

import re

from wyr_batch.errors import InputError
from wyr_batch.reads.records import shown
from wyr_batch.reads.sam import SAM_ALIGNMENT
from wyr_batch.reads.source import EXPECTED, ByteSource, DamagedStream

_HEAD_BYTES = 1 << 20
_UNPACK = "Unpack it, or pack it with gzip or zstd instead."
_BASECALL = "It holds signals, not bases: run a basecaller first and give its FASTQ or BAM."
_CHECK = "Check the step that wrote it."
NOT_UNPACKED: list[tuple[bytes, str, str]] = [
    (rb"BZh", "a bzip2 file", _UNPACK),
    (rb"\xfd7zXZ\0", "an xz file", _UNPACK),
    (rb"PK\x03\x04", "a zip file", _UNPACK),
    (rb"7z\xbc\xaf", "a 7z file", _UNPACK),
    (rb"\x04\x22M\x18", "an lz4 file", _UNPACK),
    (rb"(?s:.{257})ustar", "a tar archive", "Take the files out of it."),
    (rb"\x1f\x8b|\x28\xb5\x2f\xfd", "a packed file inside a packed file", "Unpack it once."),
]
UTF_16 = [(rb"\xff\xfe|\xfe\xff", "UTF-16 text", "Save it as plain text, in UTF-8.")]
_KNOWN = [
    *NOT_UNPACKED,
    (rb"\x89HDF", "an HDF5 file (fast5)", _BASECALL),
    (rb"\x8bPOD", "a POD5 file", _BASECALL),
    (rb"NCBI\.sra", "an SRA file", "Turn it into FASTQ with fasterq-dump."),
    (rb"%PDF", "a PDF file", _CHECK),
    (rb"(?i)\s*<(!doctype|html|\?xml)", "a web page or XML", "Check the address it was downloaded from."),
    (rb"##fileformat=VCF", "a VCF file", "Give the reads themselves."),
    *UTF_16,
]


EMPTY = "empty"


def detect_format(source: ByteSource, name: str) -> str:
    """Return FASTQ, FASTA, SAM, BAM or CRAM, or EMPTY for 0 bytes.

    The bytes looked at are put back (without a byte order mark).

    Raises: InputError saying what it looks like instead.
    """
    head = text = b""
    try:
        while not _is_enough(text) and len(text) < _HEAD_BYTES:
            if not (more := source.read(len(head) or 1)):
                break
            head += more
            text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    except DamagedStream as damage:
        if not text:
            problem = damage.problem
            raise InputError(name, problem.got, problem.expected, problem.advice) from None
    if not head:
        return EMPTY
    if not text:
        unpacked = "" if source.compression == "none" else f" after unpacking ({source.compression})"
        raise InputError(name, f"nothing but blank lines{unpacked}", EXPECTED, _CHECK)
    source.put_back(head.removeprefix(b"\xef\xbb\xbf"))
    if head.startswith(b"BAM\1"):
        return "BAM"
    if re.match(rb"CRAM[\1-\4]", head):
        return "CRAM"
    if re.match(SAM_ALIGNMENT, text) or _is_sam_header(text):
        return "SAM"
    if text[:1] in (b"@", b">"):
        return "FASTQ" if text[:1] == b"@" else "FASTA"
    for pattern, what, advice in _KNOWN:
        if re.match(pattern, head):
            raise InputError(name, what, EXPECTED, advice)
    start = text[:60].splitlines()[0]
    what = "text" if start.isascii() and start.decode().isprintable() else "unknown data"
    raise InputError(name, f"{what} starting with {shown(start)}", EXPECTED, _CHECK)


def _is_enough(text: bytes) -> bool:
    """True if the bytes tell the format: a first line, and a second one where SAM and FASTQ begin alike."""
    if text[:1] == b">":
        return True
    n_newlines = text.count(b"\n")
    return n_newlines > (1 if _SAM_HEADER.match(text) else 0)


_SAM_HEADER = re.compile(rb"@(HD|SQ|RG|PG|CO)(\s|$)")


def _is_sam_header(text: bytes) -> bool:
    """True if text starts with a header line of SAM, not with a FASTQ read of such a name."""
    if not _SAM_HEADER.match(text):
        return False
    second = text.partition(b"\n")[2].partition(b"\n")[0]
    return not second.strip() or second.startswith(b"@") or second.count(b"\t") > 9
