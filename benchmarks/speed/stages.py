"""Each stage of the host side by itself, in CPU time per read, on one thread and with a stand-in for the network.

    pip install dnaio                    # optional: without it, it is left out beside our FASTQ parser
    python -m benchmarks.speed.stages -o benchmarks/results/stages.json

The stages are the functions that a run calls, on chunks as it cuts them; fastest of five rounds. `correct`: the rows
that are written are those of the reads, and have one mask value per token. The FASTQ parsers are in fastq_parsers.py.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from benchmarks import kit
from benchmarks.speed import fastq_parsers
from benchmarks.stand_in import StandIn
from benchmarks.tables import Json, correct, markdown
from wyr_batch.bundle import Bundle, load_bundle
from wyr_batch.explain.step import ExplainStep
from wyr_batch.host import keep_freed_memory
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.reads.digest import ReadsDigest
from wyr_batch.reads.open import open_reads
from wyr_batch.rows.columns import RowBuilder
from wyr_batch.rows.writer import MaskWriter
from wyr_batch.tokens.batches import pad_batch
from wyr_batch.tokens.kmers import TOKEN_BP, tokenise
from wyr_batch.tokens.plan import Planner, Work

T = TypeVar("T")
U = TypeVar("U")
ROUNDS, BATCH_TOKENS = 5, 32768
WORKLOADS = {"1500 bp": (16_000, 1500), "150 bp": (100_000, 150)}  # reads, bp


def measure(bundle: Bundle, n_reads: int, read_bp: int) -> Json:
    """Return CPU time in µs per read by stage, and whether the rows that come out are right."""
    cpu_us: dict[str, float] = {}

    def stage(name: str, work: Callable[[T], U], items: Iterable[T]) -> list[U]:
        """Time a stage on everything that the one before it made; returns what it makes."""
        given = list(items)
        best_s = min(timing.cpu_s for timing in kit.repeated(lambda: [work(item) for item in given], ROUNDS))
        cpu_us[name] = best_s / n_reads * 1e6
        return [work(item) for item in given]

    def read(path: Path) -> list[ReadChunk]:
        with open_reads(path) as reads:
            return list(reads)

    def pad(work: Work) -> None:
        for batch in work.batches:
            pad_batch(work.tokens.ids, work.windows, batch)

    def write(batches: list[pa.RecordBatch]) -> None:
        writer = MaskWriter(output, builder.schema, {})
        for batch in batches:
            writer.write(batch)
        writer.commit()

    planner = Planner(bundle.window_bp // TOKEN_BP, bundle.window_bp // TOKEN_BP // 8, BATCH_TOKENS)
    step = ExplainStep(StandIn(bundle), np.full(len(bundle.ranks), -1, np.int32), rank_masks=False)
    builder = RowBuilder(bundle.ranks)
    with tempfile.TemporaryDirectory() as tmp:
        source, output = Path(tmp) / "reads.fastq.gz", Path(tmp) / "masks.parquet"
        n_bases = kit.write_reads(source, n_reads, read_bp, read_bp)
        [chunks] = stage("read: unpack, parse, check", read, [source])
        stage("digest: checksums for --resume", ReadsDigest().add, chunks)
        stage("tokenise", lambda chunk: tokenise(chunk.bases, chunk.offsets), chunks)
        works = stage("plan: tokenise, cut, batch", planner.plan, chunks)
        stage("pad", pad, works)
        done = stage("explain: pad, stand-in, stitch", step, works)
        batches = stage("rows: segments, columns", builder.build, done)
        stage("write: encode, compress, fsync", write, [batches])
        return {"correct": kit.is_correct(output, n_reads, n_bases), "cpu_us_per_read": cpu_us}


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the reads of each workload, to try it out")
    args = parser.parse_args()
    keep_freed_memory()  # as the command does
    bundle, rows = load_bundle(), []
    sizes = {name: (int(n_reads * args.share), read_bp) for name, (n_reads, read_bp) in WORKLOADS.items()}
    for name, (n_reads, read_bp) in sizes.items():
        rows.append({"workload": name, **measure(bundle, n_reads, read_bp)})
        print(json.dumps(rows[-1], indent=1), flush=True)
    parsers = {"timings": fastq_parsers.time_parsers(sizes), "damage": fastq_parsers.try_damage()}
    kit.write_result(args.output, "stages", {"rows": rows, "fastq_parsers": parsers})
    print(fastq_parsers.table(parsers))


def table(data: Json) -> str:
    rows, note = correct(data["rows"])
    names = list(rows[0]["cpu_us_per_read"])
    head = ["stage, µs of one core a read", *(row["workload"] for row in rows)]
    lines = [[name, *(f"{row['cpu_us_per_read'][name]:.2f}" for row in rows)] for name in names]
    stages = markdown(head, lines) + note
    return f"{stages}\n\n{fastq_parsers.table(data['fastq_parsers'])}" if "fastq_parsers" in data else stages


if __name__ == "__main__":
    main()
