"""`convert --to bam` and `--to reference`: seconds and memory for half a million short alignments, sorted and not.

    python -m benchmarks.speed.tracks -o benchmarks/results/tracks.json

Reads of 150 bp at random places of a random genome, both strands: 90 in a hundred aligned whole, 7 with an insertion
and a deletion, 3 in two parts, of which the second is a supplementary alignment; then the same without such reads. The
masks are random numbers, a token each. `correct`: the track is within 1e-6 of sums that are worked out here for the
whole genome at once; the BAM has all records, and a tag a read.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyBigWig
import pysam

from benchmarks import kit
from benchmarks.tables import Json, markdown

READ_BP, TOKEN_BP = 150, 6
N_TOKENS = READ_BP // TOKEN_BP
WHOLE, GAPPED, SPLIT = range(3)
CIGARS = {WHOLE: "150M", GAPPED: "40M1I60M2D49M", SPLIT: "90M60S"}
# Of each kind: blocks of aligned bases as (base of SEQ, base after the alignment's start, length).
BLOCKS = {WHOLE: ((0, 0, 150),), GAPPED: ((0, 0, 40), (41, 40, 60), (101, 102, 49)), SPLIT: ((0, 0, 90),)}
REST = (90, 0, 60)  # the block of the supplementary alignment, 90H60M


class Alignments:
    """Alignments at random.

    Attributes:
        kinds, starts, rest_starts: int64 [n], of each read; is_reverse, rest_is_reverse: bool [n].
        masks: float32 [n, tokens], as sequenced.
    """

    def __init__(self, n: int, genome_bp: int, *, split: bool) -> None:
        random = np.random.default_rng(1)
        shares = [0.90, 0.07, 0.03] if split else [0.93, 0.07, 0.0]
        self.n, self.genome_bp = n, genome_bp
        self.kinds = random.choice(3, n, p=shares)
        self.starts, self.rest_starts = random.integers(0, genome_bp - 200, (2, n))
        self.is_reverse, self.rest_is_reverse = random.random((2, n)) < 0.5
        self.masks = random.random((n, N_TOKENS), np.float32)

    def header(self) -> str:
        return f"@HD\tVN:1.6\n@SQ\tSN:chr1\tLN:{self.genome_bp}\n"

    def lines(self) -> Iterator[str]:
        """Yield SAM."""
        yield self.header()
        letters = kit.random_bases(np.random.default_rng(2), READ_BP * 1000).tobytes().decode()
        quality, rest_quality = "I" * READ_BP, "I" * REST[2]
        columns = (self.kinds, self.starts, self.is_reverse, self.rest_starts, self.rest_is_reverse)
        for i, (kind, start, is_reverse, rest, rest_is_reverse) in enumerate(
            zip(*(c.tolist() for c in columns), strict=True)
        ):
            at = i * 7919 % (len(letters) - READ_BP)
            bases, flag = letters[at : at + READ_BP], 16 * is_reverse
            yield f"run1.{i}\t{flag}\tchr1\t{start + 1}\t60\t{CIGARS[kind]}\t*\t0\t0\t{bases}\t{quality}\n"
            if kind == SPLIT:
                # The bases that the primary clips are the last 60 of its SEQ, the first of the other strand.
                cigar = "90H60M" if rest_is_reverse == is_reverse else "60M90H"
                flag = 0x800 + 16 * rest_is_reverse
                shown = bases[REST[0] :]
                yield f"run1.{i}\t{flag}\tchr1\t{rest + 1}\t60\t{cigar}\t*\t0\t0\t{shown}\t{rest_quality}\n"

    def sums(self) -> tuple[Any, Any]:
        """Return sum and number of the mask values at each base of the genome, float64 and int64 [genome_bp]."""
        sums, counts = np.zeros(self.genome_bp), np.zeros(self.genome_bp, np.int64)
        as_it_stands = np.repeat(self.masks, TOKEN_BP, axis=1)
        as_it_stands[self.is_reverse] = as_it_stands[self.is_reverse, ::-1]

        def add(reads: Any, values: Any, starts: Any) -> None:
            places = (starts[reads, None] + np.arange(values.shape[1])).ravel()
            np.add.at(sums, places, values.ravel())
            np.add.at(counts, places, 1)

        for kind, blocks in BLOCKS.items():
            reads = np.flatnonzero(self.kinds == kind)
            for base, place, length in blocks:
                add(reads, as_it_stands[reads, base : base + length], self.starts + place)
        reads = np.flatnonzero(self.kinds == SPLIT)
        rest = as_it_stands[reads, REST[0] :]
        is_turned = self.rest_is_reverse[reads] != self.is_reverse[reads]
        rest[is_turned] = rest[is_turned, ::-1]
        add(reads, rest, self.rest_starts)
        return sums, counts


def write_masks(path: Path, source: Path, masks: Any, order: Any) -> None:
    """Write the masks of some reads as `run` would."""
    n = len(order)
    offsets = pa.array(np.arange(n + 1, dtype=np.int32) * N_TOKENS)
    starts = np.tile(np.arange(N_TOKENS, dtype=np.int32) * TOKEN_BP, n)
    segment = pa.struct([("start", pa.int32()), ("end", pa.int32()), ("mean", pa.float32())])
    columns = {
        "read_id": pa.array([f"run1.{i}" for i in order]),
        "mate": pa.array(np.zeros(n, np.int8)),
        "length": pa.array(np.full(n, READ_BP, np.int32)),
        "n_tokens": pa.array(np.full(n, N_TOKENS, np.int32)),
        "status": pa.array(["ok"] * n),
        "mask": pa.ListArray.from_arrays(offsets, pa.array(masks[order].ravel())),
        "token_start": pa.ListArray.from_arrays(offsets, pa.array(starts)),
        "segments": pa.nulls(n, pa.list_(segment)),
        "mask_mean": pa.nulls(n, pa.float32()),
        "genus": pa.nulls(n, pa.string()),
        "genus_prob": pa.nulls(n, pa.float32()),
    }
    table = pa.table(columns).replace_schema_metadata({"wyr": json.dumps({"inputs": [str(source)]})})
    pq.write_table(table, path, compression="zstd", row_group_size=16_384)


# A process of its own starts the command: the most memory of a child counts what its parent had when it was started.
_MEASURE = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.call(sys.argv[1:])
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
wall, cpu = time.perf_counter() - start, usage.ru_utime + usage.ru_stime
print(json.dumps({"code": code, "wall_s": wall, "cpu_s": cpu, "peak_mb": usage.ru_maxrss * 1024 / 1e6}))
"""


def measured(words: list[str]) -> dict[str, float]:
    """Run the command; returns seconds on the clock, seconds of CPU time, and the most resident memory."""
    measure = [sys.executable, "-c", _MEASURE, *kit.COMMAND, "convert", *words]
    found = json.loads(subprocess.run(measure, stdout=subprocess.PIPE, text=True, check=True).stdout)
    if found.pop("code"):
        raise SystemExit(f"convert {' '.join(words)} failed")
    return {name: round(value, 2) for name, value in found.items()}


def is_right_track(path: Path, sums: Any, counts: Any) -> bool:
    with pyBigWig.open(str(path)) as file:
        found = file.values("chr1", 0, len(sums), numpy=True)
    has_any = counts > 0
    means = sums[has_any] / counts[has_any]
    return bool((np.isnan(found) == ~has_any).all() and np.allclose(found[has_any], means, atol=1e-6, rtol=0))


def is_right_bam(path: Path, n_reads: int, n_supplementary: int) -> bool:
    with pysam.AlignmentFile(str(path)) as file:
        tagged = [record.has_tag("wm") for record in file.fetch(until_eof=True)]
    return (len(tagged), sum(tagged)) == (n_reads + n_supplementary, n_reads)


def conversions(made: Alignments, folder: Path, order: str, repeats: int) -> Iterator[dict[str, Any]]:
    """Yield what the two conversions of the records in in.sam take, of which BAM is made in this order."""
    source, masks, sam = folder / "in.bam", folder / "masks.parquet", folder / "in.sam"
    (pysam.sort if order == "sorted" else pysam.view)("-O", "bam", "-o", str(source), str(sam), catch_stdout=False)
    with pysam.AlignmentFile(str(source)) as file:
        names = [record.query_name for record in file.fetch(until_eof=True) if not record.is_supplementary]
    write_masks(masks, source, made.masks, np.array([int(name.partition(".")[2]) for name in names]))
    n_split = int((made.kinds == SPLIT).sum())
    for to, output in (("reference", folder / "out.bw"), ("bam", folder / "out.bam")):
        runs = [measured([str(masks), "--to", to, "-o", str(output), "--overwrite", "-q"]) for _ in range(repeats)]
        is_right = is_right_track(output, *made.sums()) if to == "reference" else is_right_bam(output, made.n, n_split)
        spreads = {name: kit.spread([run[name] for run in runs]) for name in runs[0]}
        yield {"to": to, "order": order, "supplementary": n_split, **spreads, "correct": is_right}


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("--reads", type=int, default=500_000)
    parser.add_argument("--genome", type=int, default=5_000_000, metavar="BP")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as tmp:
        for split in (True, False):
            made = Alignments(args.reads, args.genome, split=split)
            with (Path(tmp) / "in.sam").open("w") as sam:
                sam.writelines(made.lines())
            for order in ("sorted", "unsorted"):
                rows += conversions(made, Path(tmp), order, args.repeats)
    result = {"n_reads": args.reads, "read_bp": READ_BP, "genome_bp": args.genome, "rows": rows}
    kit.write_result(args.output, "tracks", result)
    print(table(result))


def table(data: Json) -> str:
    """Return the rows that are correct."""
    lines = [
        [
            f"`--to {row['to']}`",
            row["order"],
            f"{row['supplementary']:,}",
            f"{row['wall_s']['median']:.1f} s ({row['wall_s']['min']:.1f} to {row['wall_s']['max']:.1f})",
            f"{row['cpu_s']['median']:.1f} s",
            f"{row['peak_mb']['max']:.0f} MB",
        ]
        for row in data["rows"]
        if row["correct"]
    ]
    return markdown(["", "input", "supplementary alignments", "time", "CPU time", "most memory"], lines)


if __name__ == "__main__":
    main()
