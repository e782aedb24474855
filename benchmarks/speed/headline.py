"""`wyr-batch run` from FASTQ.gz to Parquet, against the paper's 103,638 reads of 1,500 bp in 20 minutes on an H100.

    python -m benchmarks.speed.headline -o benchmarks/results/headline.json                  # the starter, CPU, samples
    python -m benchmarks.speed.headline --model bundle --device cuda --whole -o benchmarks/results/headline_gpu.json

On a CPU a sample of each workload is run and the time of the whole projected from its rate; `--whole` runs all of
it. Workloads, seeded random bases: the paper's; short reads as a rRNA filter gets them (100 bp); a mixed file (150 bp
to 20 kb, log-uniform). Rates count from the first read to the finished file; the time to load the model is given apart.
`correct`: rows, bases and ids are those of the input, and every mask has one value a token.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import wyr_batch
from benchmarks import kit
from benchmarks.tables import Json, correct, figure, markdown, percent
from wyr_batch.bundle import load_bundle
from wyr_batch.job.config import RunConfig
from wyr_batch.job.stats import RunStats

PAPER_READS, PAPER_S = 103_638, 1200.0
WORKLOADS = {  # reads of the whole, reads of the sample, least and most bp
    "paper, 1,500 bp": (PAPER_READS, 1500, 1500, 1500),
    "short, 100 bp": (1_000_000, 12_000, 100, 100),
    "mixed, 150 bp to 20 kb": (50_000, 300, 150, 20_000),
}


def measure(name: str, whole: bool, model: dict[str, Any]) -> Json:
    """Run one workload, or a sample of it.

    Args:
        model: which bundle, device, runtime and dtype, named as in `RunConfig`.
    """
    n_whole, n_sample, least_bp, most_bp = WORKLOADS[name]
    n_reads = n_whole if whole else n_sample
    done: list[RunStats] = []
    with tempfile.TemporaryDirectory() as tmp:
        source, output = Path(tmp) / "reads.fastq.gz", Path(tmp) / "masks.parquet"
        n_bases = kit.write_reads(source, n_reads, least_bp, most_bp)
        config = RunConfig((str(source),), output, **model)
        whole_run_s = kit.timed(lambda: done.append(wyr_batch.run(config))).wall_s
        is_right = kit.is_correct(output, n_reads, n_bases)
    stats, summary = done[0], done[0].as_json()
    return {
        "workload": name,
        "correct": is_right,
        "n_reads": n_reads,
        "n_bases": n_bases,
        "run_s": stats.wall_s,
        "load_s": whole_run_s - stats.wall_s,
        "reads_per_s": n_reads / stats.wall_s,
        "mbases_per_s": n_bases / stats.wall_s / 1e6,
        "tokens_per_s": summary["tokens"] / stats.wall_s,
        "n_reads_whole": n_whole,
        "whole_s": n_whole / n_reads * stats.wall_s,
        "projected": not whole,
        **{key: summary[key] for key in ("runtime", "device", "dtype", "padding_share", "stage_s")},
        **{key: summary[key] for key in ("queue_fill", "peak_memory_bytes")},
    }


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--only", default="", help="workloads whose name contains this")
    parser.add_argument("--whole", action="store_true")
    args = parser.parse_args()
    model = {key: getattr(args, key) for key in ("model", "device", "runtime", "dtype")}
    rows = []
    for name in WORKLOADS:
        if args.only in name:
            rows.append(measure(name, args.whole, model))
            print(json.dumps(rows[-1]), flush=True)
    bundle = load_bundle(args.model)
    result = {"model": bundle.name, "model_sha256": bundle.sha256, "paper_reads_per_s": PAPER_READS / PAPER_S}
    kit.write_result(args.output, "headline", {**result, "rows": rows})


def table(data: Json) -> str:
    rows, note = correct(data["rows"])
    head = ["workload", "reads run", "reads/s", "Mbases/s", "tokens/s", "padding", "the whole", "where"]
    lines = []
    for row in rows:
        whole = f"{row['n_reads_whole']:,} reads: {_duration(row['whole_s'])}"
        whole += " (projected)" if row["projected"] else ""
        cells = [row["workload"], f"{row['n_reads']:,}", figure(row["reads_per_s"]), figure(row["mbases_per_s"])]
        where = f"{row['runtime']} {row['dtype']}, {row['device']}"
        lines.append([*cells, figure(row["tokens_per_s"]), percent(row["padding_share"]), whole, where])
    paper = f"The paper: {data['paper_reads_per_s']:.1f} reads/s on an H100, 20 min for its 103,638 reads"
    return f"Model: {data['model']}. {paper}, with its own classifier.\n\n{markdown(head, lines)}{note}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    main()
