"""Each stage of the host side by itself, in CPU time per read, on one thread and with a stand-in for the network.

    python benchmarks/stages.py -o benchmarks/results/stages.json

The stages are the functions that a run calls, on chunks as it cuts them; fastest of five rounds. `correct`: the rows
that are written are those of the reads, and have one mask value per token.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from bench_host import is_correct, write_reads
from common import environment
from stand_in import StandIn

from wyr_batch.bundle import load_bundle
from wyr_batch.explain.step import ExplainStep
from wyr_batch.reads.chunk import ReadChunk
from wyr_batch.reads.digest import ReadsDigest
from wyr_batch.reads.open import open_reads
from wyr_batch.rows.columns import RowBuilder
from wyr_batch.rows.writer import MaskWriter
from wyr_batch.tokens.batches import pad_batch
from wyr_batch.tokens.kmers import tokenise
from wyr_batch.tokens.plan import Planner, Work

T, U = TypeVar("T"), TypeVar("U")
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    bundle = load_bundle()
    rows = []
    for name, n_reads, read_bp in (("1500 bp", 16_000, 1500), ("150 bp", 100_000, 150)):
        cpu_us: dict[str, float] = {}

        def measured(
            stage: str, work: Callable[[T], U], items: Iterable[T], n: int = n_reads, into: dict[str, float] = cpu_us
        ) -> list[U]:
            given, best = list(items), float("inf")
            for _ in range(ROUNDS):
                start = time.process_time()
                made = [work(item) for item in given]
                best = min(best, time.process_time() - start)
            into[stage] = best / n * 1e6
            return made

        with tempfile.TemporaryDirectory() as tmp:
            source, output = Path(tmp) / "reads.fastq.gz", Path(tmp) / "masks.parquet"
            n_bases = write_reads(source, n_reads, read_bp, read_bp)

            def read(path: Path) -> list[ReadChunk]:
                with open_reads(path) as reads:
                    return list(reads)

            def pad(work: Work) -> None:
                for batch in work.batches:
                    pad_batch(work.tokens.ids, work.windows, batch)

            builder = RowBuilder(bundle.ranks)

            def write(batches: list[Any], to: Path = output, schema: pa.Schema = builder.schema) -> None:
                writer = MaskWriter(to, schema, {})
                for batch in batches:
                    writer.write(batch)
                writer.commit()

            [chunks] = measured("read: unpack, parse, check", read, [source])
            measured("digest: checksums for --resume", ReadsDigest().add, chunks)
            measured("tokenise", lambda chunk: tokenise(chunk.bases, chunk.offsets), chunks)
            planner = Planner(bundle.window_bp // 6, bundle.window_bp // 48, 32768)
            works = measured("plan: tokenise, cut, batch", planner.plan, chunks)
            measured("pad", pad, works)
            step = ExplainStep(StandIn(bundle), np.full(len(bundle.ranks), -1, np.int32), rank_masks=False)
            done = measured("explain: pad, stand-in, stitch", step, works)
            batches = measured("rows: segments, columns", builder.build, done)
            measured("write: encode, compress, fsync", write, [batches])
            rows.append({"workload": name, "correct": is_correct(output, n_reads, n_bases), "cpu_us_per_read": cpu_us})
        print(json.dumps(rows[-1], indent=1), flush=True)
    args.output.write_text(json.dumps({"benchmark": "stages", **environment(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
