"""The host side alone: FASTQ.gz to Parquet with a stand-in of no cost for the network.

    python benchmarks/bench_host.py -o benchmarks/results/host.json

Workloads, seeded: reads of 1,500 bp, of 150 bp, and a mixed file (150 bp to 20 kb, log-uniform), each as one FASTQ.gz
of random bases and a quality line of one letter. Targets: 25,000 reads/s of 1,500 bp, 150,000 reads/s of 150 bp, three
times what an H100 can take. A run is `wyr_batch.run` as the command calls it: read, check, tokenise, plan, stitch,
find segments, build columns, write parts, join them. `correct`: rows, bases and ids are those of the input, and every
mask has one value a token.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from common import environment
from stand_in import StandIn

from wyr_batch import api
from wyr_batch.bundle import load_bundle
from wyr_batch.host import available_cpus, keep_freed_memory
from wyr_batch.job.config import RunConfig

WORKLOADS: dict[str, tuple[int, int, int]] = {  # reads, least bp, most bp
    "1500 bp": (60_000, 1500, 1500),
    "150 bp": (400_000, 150, 150),
    "mixed, 150 bp to 20 kb": (12_000, 150, 20_000),
}


def write_reads(path: Path, n_reads: int, least_bp: int, most_bp: int, seed: int = 1) -> int:
    """Write reads of log-uniform lengths; returns their bases."""
    random = np.random.default_rng(seed)
    lengths = np.exp(random.uniform(np.log(least_bp), np.log(most_bp), n_reads)).round().astype(int)
    n_bases = 0
    with gzip.open(path, "wb", compresslevel=6) as file:
        for i, length in enumerate(lengths.tolist()):
            bases = np.frombuffer(b"ACGT", np.uint8)[random.integers(0, 4, length)].tobytes()
            file.write(b"@run1.%d 1:N:0\n%s\n+\n%s\n" % (i, bases, b"I" * length))
            n_bases += length
    return n_bases


def is_correct(output: Path, n_reads: int, n_bases: int) -> bool:
    """Compare an output with what was written."""
    table = pq.read_table(output, columns=["read_id", "length", "n_tokens", "mask"])
    ids = table["read_id"]
    in_order = ids[0].as_py() == "run1.0" and ids[-1].as_py() == f"run1.{n_reads - 1}"
    same_tokens = pc.all(pc.equal(pc.list_value_length(table["mask"]), table["n_tokens"])).as_py()
    return bool(table.num_rows == n_reads and pc.sum(table["length"]).as_py() == n_bases and in_order and same_tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="Workloads whose name holds this.")
    parser.add_argument("--max-batch-tokens", type=int, default=32768, help="As a GPU would take.")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    engine = StandIn(load_bundle())  # made once: its random numbers are no part of a run
    keep_freed_memory()  # as the command does
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as tmp:
        for name, (n_reads, least_bp, most_bp) in WORKLOADS.items():
            if args.only not in name:
                continue
            source, output = Path(tmp) / "reads.fastq.gz", Path(tmp) / "masks.parquet"
            n_bases = write_reads(source, n_reads, least_bp, most_bp)
            config = RunConfig((str(source),), output, overwrite=True, max_batch_tokens=args.max_batch_tokens)
            seconds, cpu_s, last = [], [], None
            for _ in range(args.repeats + 1):
                start, start_cpu = time.perf_counter(), time.process_time()
                last = api.run(config, engines=[engine])
                seconds.append(time.perf_counter() - start)
                cpu_s.append(time.process_time() - start_cpu)
            rates = [n_reads / s for s in seconds[1:]]  # the first warms up
            rows.append(
                {
                    "workload": name,
                    "correct": is_correct(output, n_reads, n_bases),
                    "n_reads": n_reads,
                    "n_bases": n_bases,
                    "reads_per_s": {"median": statistics.median(rates), "min": min(rates), "max": max(rates)},
                    "mbases_per_s": statistics.median(rates) * n_bases / n_reads / 1e6,
                    "cpu_us_per_read": statistics.median(cpu_s[1:]) / n_reads * 1e6,
                    "padding_share": last.padding_share,
                    "stage_s": last.as_json()["stage_s"],
                    "queue_fill": last.as_json()["queue_fill"],
                    "peak_memory_mb": last.as_json()["peak_memory_bytes"] / 1e6,
                    "output_mb": output.stat().st_size / 1e6,
                }
            )
            print(json.dumps(rows[-1], indent=1))
    result = {
        "benchmark": "host",
        **environment(),
        "threads": available_cpus(),
        "max_batch_tokens": args.max_batch_tokens,
        "rows": rows,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
