"""Alignments drawn at random, with masks that are known: a BAM file and the masks file of its primary records."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pysam

from wyr_batch.tokens.kmers import tokenise

REVERSE, SECONDARY, QC_FAIL, DUPLICATE, SUPPLEMENTARY = 0x10, 0x100, 0x200, 0x400, 0x800
CONTIGS = {"one": 400, "two": 90, "three": 700}
_COMPLEMENT = str.maketrans("ACGTN", "TGCAN")


@dataclass
class Read:
    """A read as it was sequenced, and the mask of each of its bases; a row without a mask has none.

    Attributes:
        clips: bases before and after these that even the primary record has not got.
    """

    name: str
    mate: int
    bases: str
    mask: list[float]
    clips: tuple[int, int] = (0, 0)


Record = tuple[pysam.AlignedSegment, Read]


def turned(bases: str) -> str:
    """Return the other strand."""
    return bases.translate(_COMPLEMENT)[::-1]


def token_starts(bases: str) -> list[int]:
    """Return where the tokens of a read start."""
    starts: list[int] = tokenise(np.frombuffer(bases.encode(), np.uint8), np.array([0, len(bases)])).starts.tolist()
    return starts


def random_read(chosen: random.Random, name: str, mate: int = 0, n_bases: int | None = None) -> Read:
    """Return a read of up to 60 bases; one in ten has no mask."""
    n_bases = chosen.randint(0, 60) if n_bases is None else n_bases
    bases = "".join(chosen.choices("ACGTN", [9, 9, 9, 9, 1], k=n_bases))
    mask: list[float] = []
    if chosen.random() < 0.9:
        starts = token_starts(bases)
        for start, end in pairwise([*starts, n_bases]):
            mask += [float(np.float32(chosen.choice([0.0, 1.0, chosen.random()])))] * (end - start)
    clips = (chosen.randint(0, 5), chosen.randint(0, 5)) if chosen.random() < 0.2 else (0, 0)
    return Read(name, mate, bases, mask, clips)


def random_cigar(chosen: random.Random, n_bases: int) -> str:
    """Return a CIGAR without clips that takes so many bases of a read."""
    words = []
    while n_bases:
        n = min(n_bases, chosen.randint(1, 25))
        words.append(f"{n}{chosen.choice('MMM=XI')}")
        n_bases -= n
        if n_bases and chosen.random() < 0.4:
            words.append(f"{chosen.randint(1, 30)}{chosen.choice('DDN')}")
    return "".join(words)


def record_of(
    header: pysam.AlignmentHeader, read: Read, flag: int, place: tuple[int, int], cigar: str, mapq: int, bases: str
) -> pysam.AlignedSegment:
    """Return a record; `bases`: its SEQ, as it stands there."""
    record = pysam.AlignedSegment(header)
    record.query_name, record.flag = read.name, flag | (0, 0x41, 0x81)[read.mate]
    record.reference_id, record.reference_start = place
    record.mapping_quality = mapq
    record.query_sequence = bases or None
    if bases:
        record.query_qualities = pysam.qualitystring_to_array("I" * len(bases))
    record.cigarstring = cigar or None
    record.set_tags([("NM", 3), ("XS", "some words"), ("ZF", 0.1)])
    return record


def random_records(
    chosen: random.Random, n_reads: int, more: bool = True
) -> tuple[pysam.AlignmentHeader, list[Record]]:
    """Return records of some reads, of every flag, in no order, and the header of three sequences.

    Args:
        more: secondary and supplementary ones as well.
    """
    header = pysam.AlignmentHeader.from_references(list(CONTIGS), list(CONTIGS.values()))
    found: list[Record] = []
    for i in range(n_reads):
        for mate in chosen.choice([(0,), (1, 2)]):
            read = random_read(chosen, f"r{i}", mate)
            found.append((_aligned(chosen, header, read, 0), read))
            for _ in range(chosen.choice([0, 0, 1, 2]) if more else 0):
                kind = chosen.choice([SUPPLEMENTARY, SUPPLEMENTARY, SECONDARY])
                found.append((_aligned(chosen, header, read, kind), read))
    chosen.shuffle(found)
    return header, found


def _aligned(chosen: random.Random, header: pysam.AlignmentHeader, read: Read, kind: int) -> pysam.AlignedSegment:
    """Return a record of a read somewhere on the reference, or unmapped."""
    flag = kind | chosen.choice([0, 0, 0, 0, QC_FAIL, DUPLICATE]) | chosen.choice([0, REVERSE])
    contig = chosen.randrange(len(CONTIGS))
    length = list(CONTIGS.values())[contig]
    is_reverse = bool(flag & REVERSE)
    bases = turned(read.bases) if is_reverse else read.bases
    hard = read.clips[::-1] if is_reverse else read.clips
    soft = _cut(chosen, len(bases))
    if kind and chosen.random() < 0.5:  # a primary one has all bases of its read
        bases = bases[soft[0] : len(bases) - soft[1]]
        hard, soft = (hard[0] + soft[0], hard[1] + soft[1]), (0, 0)
    middle = random_cigar(chosen, len(bases) - sum(soft))
    words = zip("HSSH", (hard[0], soft[0], soft[1], hard[1]), strict=True)
    first, second, third, last = (f"{n}{letter}" if n else "" for letter, n in words)
    record = record_of(header, read, flag, (contig, 0), f"{first}{second}{middle}{third}{last}", 0, bases)
    record.mapping_quality = chosen.choice([0, 10, 60])
    span = record.reference_length or 0
    if not middle or span > length or chosen.random() < 0.1:
        record.flag |= 0x4
        record.cigarstring, record.reference_id = None, -1
        record.reference_start = -1
    else:
        record.reference_start = chosen.randint(0, length - span)
    return record


def _cut(chosen: random.Random, n_bases: int) -> tuple[int, int]:
    before = chosen.choice([0, chosen.randint(0, n_bases)])
    return before, chosen.choice([0, chosen.randint(0, n_bases - before)])


def write_alignments(path: Path, header: pysam.AlignmentHeader, records: Sequence[Record]) -> Path:
    """Write records, and the masks of the primary ones beside; returns the masks file."""
    with pysam.AlignmentFile(str(path), "w" if path.suffix == ".sam" else "wb", header=header) as out:
        for record, _ in records:
            out.write(record)
    primary = [read for record, read in records if not record.flag & (SECONDARY | SUPPLEMENTARY)]
    return write_masks(path.with_suffix(".parquet"), primary, path)


def write_masks(path: Path, reads: Sequence[Read], source: Path, **options: Any) -> Path:
    """Write a masks file, as `run` would, of masks that are given."""
    starts = [token_starts(read.bases) if read.mask else None for read in reads]
    masks = [start and [read.mask[i] for i in start] for read, start in zip(reads, starts, strict=True)]
    n = len(reads)
    segment = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("mean", pa.float32())])
    columns = {
        "read_id": pa.array([read.name for read in reads], pa.string()),
        "mate": pa.array([read.mate for read in reads], pa.int8()),
        "length": pa.array([len(read.bases) for read in reads], pa.int32()),
        "n_tokens": pa.array([len(start or []) for start in starts], pa.int32()),
        "status": pa.array(["ok" if read.mask else "too_short" for read in reads], pa.string()),
        "mask": pa.array(masks, pa.list_(pa.float32())),
        "token_start": pa.array(starts, pa.list_(pa.int32())),
        "segments": pa.array([None] * n, pa.list_(segment)),
        "mask_mean": pa.array([None] * n, pa.float32()),
        "genus": pa.array([None] * n, pa.string()),
        "genus_prob": pa.array([None] * n, pa.float32()),
    }
    footer = {"wyr": json.dumps({"inputs": [str(source)]})}
    if options:
        run = {"version": "0", "bundle_sha256": "0", "inputs": [], "footer": {}, "options": options}
        footer["wyr_run"] = json.dumps(run)
    pq.write_table(pa.table(columns).replace_schema_metadata(footer), path)
    return path
