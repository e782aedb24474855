"""The host side alone: FASTQ.gz to Parquet with a stand-in of no cost for the network.

    python -m benchmarks.speed.host -o benchmarks/results/host.json

Workloads, seeded: reads of 1,500 bp, of 150 bp, and a mixed file (150 bp to 20 kb, log-uniform), each as one FASTQ.gz
of random bases and a quality line of one letter. Targets: 25,000 reads/s of 1,500 bp, 150,000 reads/s of 150 bp, three
times what an H100 can take. A run is `wyr_batch.run` as the command calls it: read, check, tokenise, plan, stitch,
find segments, build columns, write parts, join them. `correct`: rows, bases and ids are those of the input, and every
mask has one value a token.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path

import wyr_batch
from benchmarks import kit
from benchmarks.stand_in import StandIn
from benchmarks.tables import Json, correct, figure, markdown, percent, shown
from wyr_batch.bundle import load_bundle
from wyr_batch.host import available_cpus, keep_freed_memory
from wyr_batch.job.config import RunConfig
from wyr_batch.job.stats import RunStats

WORKLOADS = {  # reads, least bp, most bp
    "1500 bp": (60_000, 1500, 1500),
    "150 bp": (400_000, 150, 150),
    "mixed, 150 bp to 20 kb": (12_000, 150, 20_000),
}


def measure(name: str, engine: StandIn, max_batch_tokens: int, repeats: int) -> Json:
    """Run one workload; the first run warms up and does not count."""
    n_reads, least_bp, most_bp = WORKLOADS[name]
    with tempfile.TemporaryDirectory() as tmp:
        source, output = Path(tmp) / "reads.fastq.gz", Path(tmp) / "masks.parquet"
        n_bases = kit.write_reads(source, n_reads, least_bp, most_bp)
        config = RunConfig((str(source),), output, overwrite=True, max_batch_tokens=max_batch_tokens)
        done: list[RunStats] = []
        timings = kit.repeated(lambda: done.append(wyr_batch.run(config, engines=[engine])), repeats)
        rates, summary = kit.spread(kit.per_s(n_reads, timings)), done[-1].as_json()
        return {
            "workload": name,
            "correct": kit.is_correct(output, n_reads, n_bases),
            "n_reads": n_reads,
            "n_bases": n_bases,
            "reads_per_s": rates,
            "mbases_per_s": rates["median"] * n_bases / n_reads / 1e6,
            "cpu_us_per_read": statistics.median(timing.cpu_s for timing in timings) / n_reads * 1e6,
            "padding_share": done[-1].padding_share,
            "stage_s": summary["stage_s"],
            "queue_fill": summary["queue_fill"],
            "peak_memory_mb": summary["peak_memory_bytes"] / 1e6,
            "output_mb": output.stat().st_size / 1e6,
        }


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    parser.add_argument("--max-batch-tokens", type=int, default=32768, help="as a GPU would take")
    args = parser.parse_args()
    engine = StandIn(load_bundle())  # made once: its random numbers are no part of a run
    keep_freed_memory()  # as the command does
    rows = []
    for name in WORKLOADS:
        if args.only in name:
            rows.append(measure(name, engine, args.max_batch_tokens, args.repeats))
            print(json.dumps(rows[-1], indent=1), flush=True)
    settings = {"threads": available_cpus(), "max_batch_tokens": args.max_batch_tokens}
    kit.write_result(args.output, "host", {**settings, "rows": rows})


def table(data: Json) -> str:
    rows, note = correct(data["rows"])
    head = ["reads", "reads/s", "Mbases/s", "CPU time a read", "padding", "peak memory"]
    lines = [
        [
            row["workload"],
            shown(row["reads_per_s"]),
            figure(row["mbases_per_s"]),
            f"{row['cpu_us_per_read']:.1f} µs",
            percent(row["padding_share"]),
            f"{row['peak_memory_mb']:.0f} MB",
        ]
        for row in rows
    ]
    return f"FASTQ.gz to Parquet, {data['threads']} threads.\n\n{markdown(head, lines)}{note}"


if __name__ == "__main__":
    main()
