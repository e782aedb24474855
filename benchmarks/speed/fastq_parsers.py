"""Our FASTQ parser and dnaio's: CPU time per read on one thread, and what each does with damaged files.

A part of `benchmarks.speed.stages`. dnaio is optional; without it its columns are left out. Timed, in alternation:
- wyr-batch: `open_reads`, which unpacks, parses and checks, and gives columns;
- dnaio: `dnaio.open(path, open_threads=0)`, and a look at every record;
- dnaio and columns: the same, and the records made into what our pipeline needs: ids as Arrow strings, bases as one
  array with offsets;
- dnaio, columns and checks: the same, and bases and qualities checked for bytes that may not be there, as ours does.
Python's garbage collector is off meanwhile, as in `timeit`; it would count against dnaio, whose records are Python
objects. `correct`: both give the same columns.
"""

from __future__ import annotations

import gc
import gzip
import importlib.util
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import kit
from benchmarks.tables import Json, correct, markdown, shown
from wyr_batch.reads.open import open_reads
from wyr_batch.reads.records import offsets_from

HAS_DNAIO = importlib.util.find_spec("dnaio") is not None
ROUNDS = 7
DNAIO_CHUNK_READS = 1024  # records made into columns at once: more of them leave the CPU's cache
READS, READ_BP, DAMAGED, BLOCK_READS = 2000, 150, 1500, 100  # of the damaged files; the record that is damaged
Columns = tuple[pa.StringArray, kit.Bases, kit.Ints]
Read = tuple[str, str]  # id, bases


# Two parsers


def our_columns(path: Path) -> Iterator[Columns]:
    with open_reads(path) as reads:
        for chunk in reads:
            yield chunk.ids, chunk.bases, chunk.offsets


def look_at_dnaio_records(path: Path) -> None:
    import dnaio

    with dnaio.open(path, open_threads=0) as reader:
        for _ in reader:
            pass


def dnaio_columns(path: Path, *, check: bool = False) -> Iterator[Columns]:
    import dnaio

    with dnaio.open(path, open_threads=0) as reader:
        while records := list(islice(reader, DNAIO_CHUNK_READS)):
            ids = pa.array([record.id for record in records], pa.string())
            bases = _joined([record.sequence for record in records])
            if check and _has_odd_bytes(bases, _joined([record.qualities for record in records])):
                raise ValueError(f"{path}: bytes that may not be there")
            yield ids, bases, offsets_from(np.fromiter(map(len, records), np.int64, len(records)))


def _joined(texts: list[str]) -> kit.Bases:
    return np.frombuffer("".join(texts).encode(), np.uint8)


def _has_odd_bytes(bases: kit.Bases, qualities: kit.Bases) -> bool:
    """Say whether bases hold anything but ASCII letters, '*', '-' and '.', or qualities anything but '!' to '~'."""
    odd = ((bases | 0x20) - ord("a")) > 25  # uint8 wraps
    if odd.any() and not np.isin(bases[odd], np.frombuffer(b"*-.", np.uint8)).all():
        return True
    return bool(((qualities - 33) > 93).any())


# Timings


def time_parsers(sizes: Mapping[str, tuple[int, int]]) -> list[Json]:
    """Time the parsers on simulated reads, plain and packed with gzip.

    Args:
        sizes: by workload, how many reads of how many bp.
    Returns: a row a workload and file.
    """
    rows = []
    for workload, (n_reads, read_bp) in sizes.items():
        with tempfile.TemporaryDirectory() as tmp:
            for name in ("reads.fastq", "reads.fastq.gz"):
                path = Path(tmp) / name
                kit.write_reads(path, n_reads, read_bp, read_bp)
                ways = {"wyr-batch": partial(_exhaust, our_columns, path)}
                if HAS_DNAIO:
                    ways["dnaio"] = partial(look_at_dnaio_records, path)
                    ways["dnaio and columns"] = partial(_exhaust, dnaio_columns, path)
                    ways["dnaio, columns and checks"] = partial(_exhaust, partial(dnaio_columns, check=True), path)
                with _no_garbage_collection():
                    timings = kit.alternated(ways, ROUNDS)
                cpu_us = {way: [t.cpu_s / n_reads * 1e6 for t in values] for way, values in timings.items()}
                rows.append(
                    {
                        "workload": workload,
                        "packed": path.suffix == ".gz",
                        "correct": not HAS_DNAIO or _same(list(our_columns(path)), list(dnaio_columns(path))),
                        "cpu_us_per_read": {way: kit.spread(values) for way, values in cpu_us.items()},
                    }
                )
    return rows


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _exhaust(columns: Callable[[Path], Iterator[Columns]], path: Path) -> None:
    for _ in columns(path):
        pass


def _same(ours: list[Columns], theirs: list[Columns]) -> bool:
    """Say whether two lists of chunks, which may be cut at other places, hold the same reads."""
    ids = [pa.concat_arrays([chunk[0] for chunk in chunks]) for chunks in (ours, theirs)]
    arrays = [[np.concatenate([part(chunk) for chunk in chunks]) for part in _PARTS] for chunks in (ours, theirs)]
    return ids[0].equals(ids[1]) and all(map(np.array_equal, *arrays))


_PARTS: tuple[Callable[[Columns], Any], ...] = (lambda chunk: chunk[1], lambda chunk: np.diff(chunk[2]))


# Damage


def our_reads(path: Path) -> Iterator[Read]:
    for ids, bases, offsets in our_columns(path):
        text = bases.tobytes().decode()
        for name, (start, end) in zip(ids.to_pylist(), pairwise(offsets.tolist()), strict=True):
            yield name, text[start:end]


def dnaio_reads(path: Path) -> Iterator[Read]:
    import dnaio

    with dnaio.open(path, open_threads=0) as reader:
        for record in reader:
            yield record.id, record.sequence


def try_damage() -> list[Json]:
    """Give each parser files that are damaged in one place, and two odd ones that are not.

    Returns: a row a file; by parser the reads that it gave, how many of them are not those of the undamaged file, and
        the name of the exception that it raised at the end, None without one.
    """
    records = [b"@" + text for text in b"".join(kit.simulated_fastq(np.full(READS, READ_BP))).split(b"@")[1:]]
    parsers = {"wyr-batch": our_reads} | ({"dnaio": dnaio_reads} if HAS_DNAIO else {})
    rows = []
    with tempfile.TemporaryDirectory() as tmp:
        intact = Path(tmp) / "intact.fastq"
        intact.write_bytes(b"".join(records))
        expected = list(our_reads(intact))
        for name, (data, n_good) in damaged_files(records).items():
            path = Path(tmp) / ("reads.fastq.gz" if data[:2] == b"\x1f\x8b" else "reads.fastq")
            path.write_bytes(data)
            verdicts = {parser: _verdict(read(path), expected) for parser, read in parsers.items()}
            rows.append({"file": name, "good_reads": n_good, "parsers": verdicts})
    return rows


def _verdict(reads: Iterator[Read], expected: list[Read]) -> Json:
    given, error = [], None
    try:
        for read in reads:
            given.append(read)
    except Exception as raised:  # dnaio passes on those of what unpacks
        error = type(raised).__name__
    n_wrong = sum(read != right for read, right in zip(given, expected, strict=False))
    return {"reads": len(given), "wrong": n_wrong + max(0, len(given) - len(expected)), "error": error}


def damaged_files(records: list[bytes]) -> dict[str, tuple[bytes, int]]:
    """Return by name what is in each file, and the number of whole and right reads before the damage, or in it."""
    whole = b"".join(records)
    header, sequence, _, quality = records[DAMAGED].splitlines()
    before, after = b"".join(records[:DAMAGED]), b"".join(records[DAMAGED + 1 :])

    def with_record(sequence: bytes = sequence, plus: bytes = b"+", quality: bytes = quality) -> tuple[bytes, int]:
        return before + b"\n".join((header, sequence, plus, quality, b"")) + after, DAMAGED

    packed = gzip.compress(whole, mtime=0)
    cut = packed[: len(packed) // 2]
    blocks = [b"".join(records[i : i + BLOCK_READS]) for i in range(0, len(records), BLOCK_READS)]
    n_cut = len(records[-1])
    return {
        "ends inside the last sequence": (whole[: -n_cut + len(header) + 20], READS - 1),
        "ends inside the last quality line": (whole[:-20], READS - 1),
        "gzip stream cut in half": (cut, zlib.decompressobj(wbits=31).decompress(cut).count(b"\n") // 4),
        "bgzip block with one base changed (wrong checksum)": (_bgzip(blocks, DAMAGED // BLOCK_READS), DAMAGED),
        "quality line shorter than the sequence": with_record(quality=quality[:-1]),
        "`+` line that repeats another header": with_record(plus=b"+run1.0 1:N:0"),
        "digits in the sequence": with_record(sequence=b"12" + sequence[2:]),
        "NUL in the quality line": with_record(quality=b"\0" + quality[1:]),
        "space in the quality line": with_record(quality=b" " + quality[1:]),
        "CR LF line ends (not damage)": (whole.replace(b"\n", b"\r\n"), READS),
        "blank lines at the end (not damage)": (whole + b"\n\n\n", READS),
    }


def _bgzip(blocks: list[bytes], damaged: int) -> bytes:
    """Pack blocks, each stored as it is; one base of one block is changed after its checksum was made."""
    packed = []
    for i, block in enumerate(blocks):
        deflate = zlib.compressobj(0, wbits=-15)
        stored = deflate.compress(block) + deflate.flush()
        if i == damaged:
            place = stored.index(b"\n") + 1
            stored = stored[:place] + (b"C" if stored[place : place + 1] != b"C" else b"G") + stored[place + 1 :]
        head = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + struct.pack("<HBBHH", 6, 66, 67, 2, len(stored) + 25)
        packed.append(head + stored + struct.pack("<II", zlib.crc32(block), len(block)))
    end = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
    return b"".join(packed) + end


# Tables


def table(data: Json) -> str:
    """Return the part of the page with both tables."""
    rows, note = correct(data["timings"])
    ways = list(rows[0]["cpu_us_per_read"])
    head = ["FASTQ parser, µs of one core a read", *(_file(row) for row in rows)]
    lines = [[way, *(shown(row["cpu_us_per_read"][way], ".2f") for row in rows)] for way in ways]
    parsers = list(data["damage"][0]["parsers"])
    left = "" if "dnaio" in parsers else "\n\ndnaio was not installed, so it is left out."
    verdicts = [
        [row["file"], f"{row['good_reads']:,}", *(_words(row["parsers"][parser]) for parser in parsers)]
        for row in data["damage"]
    ]
    about = (
        f"What each does with a file of {READS:,} reads that is damaged in one place. Wrong reads are those that the "
        "undamaged file does not have."
    )
    damage = markdown(["file", "good reads before the damage", *parsers], verdicts)
    return f"### FASTQ parsers\n\n{markdown(head, lines)}{note}{left}\n\n{about}\n\n{damage}"


def _file(row: Json) -> str:
    return f"{row['workload']}, {'gzip' if row['packed'] else 'plain'}"


def _words(verdict: Json) -> str:
    wrong = f", {verdict['wrong']} of them wrong" if verdict["wrong"] else ""
    end = f"then {verdict['error']}" if verdict["error"] else "no error"
    return f"{verdict['reads']:,} reads{wrong}, {end}"
