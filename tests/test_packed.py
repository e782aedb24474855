"""Damage inside gzip, bgzip and zstd is seen, and named after the reads before it."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable

import pytest
from read_files import (
    BGZF_END_BYTES,
    THREE,
    Read,
    Write,
    bgzip_of,
    drain,
    fasta_of,
    fastq_of,
    gzip_of,
    message_of,
    sam_of,
    zstd_of,
)
from zlib_ng import zlib_ng

from wyr_batch.errors import InputError
from wyr_batch.reads import source as bytesource
from wyr_batch.reads.open import Reads, open_reads


@pytest.fixture(params=[zlib, zlib_ng], ids=["zlib", "zlib-ng"])
def unpacker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gzip with the standard library, and with what is taken where it is installed."""
    monkeypatch.setattr(bytesource, "_zlib", request.param)


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


def test_every_block_of_zstd_before_a_damaged_one_is_given(write: Write) -> None:
    """A zstd block holds at most 128 KiB unpacked, so less than two of them may be missing."""
    rng = random.Random(3)
    reads = [(f"r{i}", "".join(rng.choices("ACGT", k=200))) for i in range(4000)]
    data = bytearray(zstd_of(fastq_of(reads)))
    for place in (len(data) // 3, len(data) * 3 // 4):
        damaged = (
            bytes(data[:place]) + bytes(byte ^ 255 for byte in data[place : place + 99]) + bytes(data[place + 99 :])
        )
        got, message = drain(open_reads(write(damaged)))
        assert got == reads[: len(got)]
        n_whole = len(reads) * place // len(data) - 2 * (1 << 17) // len(fastq_of(reads[-1:]))
        assert len(got) >= n_whole > 0
        assert "damaged zstd data" in str(message)


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


def test_a_zstd_window_that_needs_gigabytes_is_named(write: Write) -> None:
    block = fastq_of(THREE)
    header = b"\x28\xb5\x2f\xfd\x00" + bytes([(31 - 10) << 3])  # no checksum; a window of 2^31 bytes
    data = header + (1 | len(block) << 3).to_bytes(3, "little") + block
    assert "got zstd data with a window over 128 MiB" in message_of(write(data))
