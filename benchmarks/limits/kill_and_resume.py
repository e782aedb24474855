"""Kill a run with SIGKILL at random moments, resume it each time, and compare with a run that was left alone.

    python -m benchmarks.limits.kill_and_resume -o benchmarks/results/kill_and_resume.json

The starter on seeded short reads, by default 200,000 and twenty kills. Each kill comes after a random time since the
resumed run began to add rows, so that every one of them finds work half done. `correct`: the output equals that
of the uninterrupted run row for row, and nothing else is left beside it.
"""

from __future__ import annotations

import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks import kit
from benchmarks.tables import Json
from wyr_batch.rows.folder import parts_folder

RUN = [*kit.COMMAND, "run", "-q"]


def finished_reads(output: Path) -> int:
    """Return the rows in finished parts."""
    return sum(pq.read_metadata(path).num_rows for path in parts_folder(output).glob("part-*.parquet"))


def has_begun(output: Path, since: float) -> bool:
    """Say whether a part has been begun, or finished, since then; what an earlier kill left does not count.

    Args:
        since: seconds since the epoch.
    """
    times = []
    for path in parts_folder(output).glob("part-*"):
        with suppress(FileNotFoundError):  # renamed meanwhile
            times.append(path.stat().st_mtime)
    return max(times, default=0.0) > since


def run_and_kill(command: Sequence[str], output: Path, wait_s: float) -> Json:
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
    parser = kit.options(__doc__)
    parser.add_argument("--reads", type=int, default=200_000)
    parser.add_argument("--read-bp", type=int, default=50)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--part-seconds", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    chosen = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as tmp:
        source, whole, output = (Path(tmp) / name for name in ("reads.fastq.gz", "whole.parquet", "masks.parquet"))
        kit.write_reads(source, args.reads, args.read_bp // 2, args.read_bp, args.seed)
        whole_s = kit.timed(lambda: subprocess.run([*RUN, str(source), "-o", str(whole)], check=True)).wall_s
        command = [*RUN, str(source), "-o", str(output), "--part-seconds", str(args.part_seconds), "--resume"]
        kills: list[Json] = []
        while len(kills) < args.kills and not any(kill["code"] == 0 for kill in kills):
            kills.append(run_and_kill(command, output, chosen.uniform(0, 1.6 * whole_s / args.kills)))
            print(kills[-1], flush=True)
        end = subprocess.run(command)
        same = pq.read_table(output).equals(pq.read_table(whole))
        left = sorted(path.name for path in Path(tmp).iterdir())
    result = {
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
    kit.write_result(args.output, "kill_and_resume", result)
    print(f"{len(kills)} kills, correct: {result['correct']}")


def table(data: Json) -> str:
    done = [kill["reads_finished"] or 0 for kill in data["kills"]]
    moments = sum(bool(kill["partial"]) for kill in data["kills"])
    return (
        f"{data['n_reads']:,} reads, killed with SIGKILL {len(done)} times at random ({moments} of them while a part "
        f"was being written) and resumed each time. The output equals that of an uninterrupted run, row for row: "
        f"**{'yes' if data['same_rows'] else 'no'}**. Reads finished at each kill: {', '.join(f'{n:,}' for n in done)}."
    )


if __name__ == "__main__":
    main()
