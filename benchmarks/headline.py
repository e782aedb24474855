"""`wyr-batch run` from FASTQ.gz to Parquet, against the paper's 103,638 reads of 1,500 bp in 20 minutes on an H100.

    python benchmarks/headline.py -o benchmarks/results/headline.json                      # the starter, CPU, samples
    python benchmarks/headline.py --model bundle --device cuda --whole -o benchmarks/results/headline_gpu.json

On a CPU a sample of each workload is run and the time of the whole projected from its rate; `--whole` runs all of
it. Workloads, seeded random bases: the paper's; short reads as a rRNA filter gets them (100 bp); a mixed file (150 bp
to 20 kb, log-uniform). Rates count from the first read to the finished file; the time to load the model is given apart.
`correct`: rows, bases and ids are those of the input, and every mask has one value a token.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from bench_host import is_correct, write_reads
from common import environment

import wyr_batch
from wyr_batch.bundle import load_bundle
from wyr_batch.job.config import RunConfig

PAPER_READS, PAPER_S = 103_638, 1200.0
WORKLOADS = {  # reads of the whole, reads of the sample, least and most bp
    "paper, 1,500 bp": (PAPER_READS, 1500, 1500, 1500),
    "short, 100 bp": (1_000_000, 12_000, 100, 100),
    "mixed, 150 bp to 20 kb": (50_000, 300, 150, 20_000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--only", default="", help="Workloads whose name holds this.")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as tmp:
        for name, (n_whole, n_sample, least_bp, most_bp) in WORKLOADS.items():
            if args.only not in name:
                continue
            n_reads = n_whole if args.whole else n_sample
            source, output = Path(tmp) / "reads.fastq.gz", Path(tmp) / "masks.parquet"
            n_bases = write_reads(source, n_reads, least_bp, most_bp)
            config = RunConfig(
                (str(source),),
                output,
                model=args.model,
                device=args.device,
                runtime=args.runtime,
                dtype=args.dtype,
                overwrite=True,
            )
            start = time.perf_counter()
            stats = wyr_batch.run(config)
            whole_run_s = time.perf_counter() - start
            summary = stats.as_json()
            rows.append(
                {
                    "workload": name,
                    "correct": is_correct(output, n_reads, n_bases),
                    "n_reads": n_reads,
                    "n_bases": n_bases,
                    "run_s": stats.wall_s,
                    "load_s": whole_run_s - stats.wall_s,
                    "reads_per_s": n_reads / stats.wall_s,
                    "mbases_per_s": n_bases / stats.wall_s / 1e6,
                    "tokens_per_s": summary["tokens"] / stats.wall_s,
                    "n_reads_whole": n_whole,
                    "whole_s": n_whole / n_reads * stats.wall_s,
                    "projected": not args.whole,
                    **{key: summary[key] for key in ("runtime", "device", "dtype", "padding_share", "stage_s")},
                    **{key: summary[key] for key in ("queue_fill", "peak_memory_bytes")},
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    bundle = load_bundle(args.model)
    result = {
        "benchmark": "headline",
        **environment(),
        "model": bundle.name,
        "model_sha256": bundle.sha256,
        "paper_reads_per_s": PAPER_READS / PAPER_S,
        "rows": rows,
    }
    args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
