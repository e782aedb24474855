"""Resident memory over a long run: two million short reads, a stand-in of no cost for the network.

    python benchmarks/memory.py -o benchmarks/results/memory.json

Reads of 50 to 150 bp come through a pipe, so nothing is kept on disk but the output. Lengths grow along the file
(`--order ascending`), or are mixed. Resident memory is looked at after every chunk that is written; `correct`: every
read is a row, and memory at the end is within 10 % of what it was after 100,000 reads.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from common import environment
from stand_in import StandIn

from wyr_batch import api
from wyr_batch.bundle import load_bundle
from wyr_batch.host import keep_freed_memory
from wyr_batch.job.config import RunConfig
from wyr_batch.job.stats import RunStats

FIRST_LOOK_READS, GROWTH_LIMIT = 100_000, 0.10
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def feed(path: Path, n_reads: int, order: str) -> None:
    """Write FASTQ into a named pipe."""
    random = np.random.default_rng(1)
    letters = random.choice(list("ACGT"), 1 << 16).astype("S1").tobytes()
    with path.open("wb") as pipe:
        for start in range(0, n_reads, 10_000):
            n = min(10_000, n_reads - start)
            lengths = random.integers(50, 151, n)
            if order == "ascending":
                lengths = np.full(n, 50 + 100 * start // n_reads)
            at = random.integers(0, len(letters) - 150, n)
            rows = zip(range(start, start + n), at.tolist(), lengths.tolist(), strict=True)
            pipe.write(b"".join(b"@r%d\n%s\n+\n%s\n" % (i, letters[a : a + m], b"I" * m) for i, a, m in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=int, default=2_000_000)
    parser.add_argument("--order", choices=["mixed", "ascending"], default="mixed")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    engine = StandIn(load_bundle())
    keep_freed_memory()  # as the command does
    looks: list[tuple[int, int]] = []
    add = RunStats.add

    def add_and_look(stats: RunStats, *counted: object) -> None:
        add(stats, *counted)
        looks.append((stats.n_reads, resident_bytes()))

    RunStats.add = add_and_look
    with tempfile.TemporaryDirectory() as tmp:
        pipe, output = Path(tmp) / "reads.fastq", Path(tmp) / "masks.parquet"
        os.mkfifo(pipe)
        threading.Thread(target=feed, args=(pipe, args.reads, args.order), daemon=True).start()
        stats = api.run(RunConfig((str(pipe),), output, max_batch_tokens=32768), engines=[engine])
        n_rows = pq.read_metadata(output).num_rows
    early = next(memory for n, memory in looks if n >= FIRST_LOOK_READS)
    late = looks[-1][1]
    result = {
        "benchmark": "memory",
        **environment(),
        "order": args.order,
        "n_reads": args.reads,
        "reads_per_s": round(stats.n_reads / stats.wall_s),
        "resident_mb_after_100000": round(early / 1e6, 1),
        "resident_mb_at_end": round(late / 1e6, 1),
        "resident_mb_most": round(max(memory for _, memory in looks) / 1e6, 1),
        "growth": round(late / early - 1, 4),
        "correct": n_rows == args.reads and abs(late / early - 1) <= GROWTH_LIMIT,
        "resident_mb": [[n, round(memory / 1e6, 1)] for n, memory in looks[:: max(1, len(looks) // 60)]],
    }
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print({key: value for key, value in result.items() if key not in ("resident_mb", "versions")})


if __name__ == "__main__":
    main()
