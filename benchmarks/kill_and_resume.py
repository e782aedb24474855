"""Kill a run with SIGKILL at random moments, resume it each time, and compare with a run that was left alone.

    python benchmarks/kill_and_resume.py -o benchmarks/results/kill_and_resume.json

The starter on seeded short reads, by default 200,000 and twenty kills. Each kill comes after a random time since the
resumed run began to add rows, so that every one of them finds work half done. `correct`: the output equals that
of the uninterrupted run row for row, and nothing else is left beside it.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from bench_host import write_reads
from common import environment

from wyr_batch.rows.folder import parts_folder

RUN = [sys.executable, "-c", "import sys; from wyr_batch.cli import main; sys.exit(main(sys.argv[1:]))", "run", "-q"]


def finished_reads(output: Path) -> int:
    """Rows in finished parts."""
    return sum(pq.read_metadata(path).num_rows for path in parts_folder(output).glob("part-*.parquet"))


def has_begun(output: Path, since: float) -> bool:
    """Say whether a part has been begun, or finished, since then; what an earlier kill left does not count."""
    times = []
    for path in parts_folder(output).glob("part-*"):
        with suppress(FileNotFoundError):  # renamed meanwhile
            times.append(path.stat().st_mtime)
    return max(times, default=0.0) > since


def run_and_kill(command: list[str], output: Path, wait_s: float) -> dict[str, Any]:
    """Start or resume a run, kill it some time after its first batches; returns what was then finished."""
    started, since = time.monotonic(), time.time()
    process = subprocess.Popen(command)
    while process.poll() is None and not has_begun(output, since):
        time.sleep(0.01)
    time.sleep(wait_s)
    process.send_signal(signal.SIGKILL)
    code = process.wait()
    done = finished_reads(output) if parts_folder(output).exists() else None
    partial = [path.name for path in parts_folder(output).glob("*.partial")]
    return {"after_s": round(time.monotonic() - started, 2), "code": code, "reads_finished": done, "partial": partial}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=int, default=200_000)
    parser.add_argument("--read-bp", type=int, default=50)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--part-seconds", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    chosen = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as tmp:
        source, whole, output = (Path(tmp) / name for name in ("reads.fastq.gz", "whole.parquet", "masks.parquet"))
        write_reads(source, args.reads, args.read_bp // 2, args.read_bp, args.seed)
        start = time.perf_counter()
        subprocess.run([*RUN, str(source), "-o", str(whole)], check=True)
        whole_s = time.perf_counter() - start
        command = [*RUN, str(source), "-o", str(output), "--part-seconds", str(args.part_seconds), "--resume"]
        kills = []
        for _ in range(args.kills):
            kills.append(run_and_kill(command, output, chosen.uniform(0, 1.6 * whole_s / args.kills)))
            print(kills[-1], flush=True)
            if kills[-1]["code"] == 0:
                break
        end = subprocess.run(command)
        same = pq.read_table(output).equals(pq.read_table(whole))
        left = sorted(path.name for path in Path(tmp).iterdir())
        result = {
            "benchmark": "kill_and_resume",
            **environment(),
            "n_reads": args.reads,
            "read_bp": [args.read_bp // 2, args.read_bp],
            "part_seconds": args.part_seconds,
            "uninterrupted_s": round(whole_s, 1),
            "kills": kills,
            "last_exit_code": end.returncode,
            "same_rows": same,
            "left_beside": left,
            "correct": same and end.returncode == 0 and left == ["masks.parquet", "reads.fastq.gz", "whole.parquet"],
        }
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{len(kills)} kills, correct: {result['correct']}")


if __name__ == "__main__":
    main()
