"""Resident memory over a long run: two million short reads, a stand-in of no cost for the network.

    python -m benchmarks.limits.memory -o benchmarks/results/memory.json

Reads of 50 to 150 bp come through a pipe, so nothing is kept on disk but the output. Lengths are mixed. Resident memory
is looked at with every batch that the engine is given; `correct`: every read is a row, and memory at the end is within
10 % of what it was after 100,000 reads. With `--order ascending` lengths grow along the file, and memory with them: a
chunk has as many reads, so three times the bases.
"""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

import wyr_batch
from benchmarks import kit
from benchmarks.stand_in import StandIn
from benchmarks.tables import Json, markdown
from wyr_batch.bundle import Bundle, load_bundle
from wyr_batch.engines.signature import EngineOutput, Int32s
from wyr_batch.host import keep_freed_memory
from wyr_batch.job.config import RunConfig

LEAST_BP, MOST_BP = 50, 150
FIRST_LOOK_READS, GROWTH_LIMIT, SHOWN_LOOKS = 100_000, 0.10, 60
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Watched(StandIn):
    """A stand-in that notes resident memory.

    Attributes:
        looks: with each batch, the reads so far (one window each) and resident memory in bytes.
    """

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle)
        self.looks: list[tuple[int, int]] = []

    def _infer(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        n_before = self.looks[-1][0] if self.looks else 0
        self.looks.append((n_before + len(input_ids), resident_bytes()))
        return super()._infer(input_ids, explain_ids)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def feed(path: Path, n_reads: int, order: str) -> None:
    """Write FASTQ into a named pipe, lengths mixed or ascending."""
    lengths = LEAST_BP + (MOST_BP - LEAST_BP) * np.arange(n_reads) // n_reads
    if order == "mixed":
        lengths = np.random.default_rng(1).integers(LEAST_BP, MOST_BP + 1, n_reads)
    with path.open("wb") as pipe:
        pipe.writelines(kit.simulated_fastq(lengths))


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("--reads", type=int, default=2_000_000)
    parser.add_argument("--order", choices=["mixed", "ascending"], default="mixed")
    args = parser.parse_args()
    engine = Watched(load_bundle())
    keep_freed_memory()  # as the command does
    with tempfile.TemporaryDirectory() as tmp:
        pipe, output = Path(tmp) / "reads.fastq", Path(tmp) / "masks.parquet"
        os.mkfifo(pipe)
        threading.Thread(target=feed, args=(pipe, args.reads, args.order), daemon=True).start()
        stats = wyr_batch.run(RunConfig((str(pipe),), output, max_batch_tokens=32768), engines=[engine])
        n_rows = pq.read_metadata(output).num_rows
    looks = engine.looks
    early = next(memory for n, memory in looks if n >= min(FIRST_LOOK_READS, args.reads))
    late = looks[-1][1]
    result = {
        "order": args.order,
        "n_reads": args.reads,
        "reads_per_s": round(stats.n_reads / stats.wall_s),
        "resident_mb_after_100000": round(early / 1e6, 1),
        "resident_mb_at_end": round(late / 1e6, 1),
        "resident_mb_most": round(max(memory for _, memory in looks) / 1e6, 1),
        "growth": round(late / early - 1, 4),
        "correct": n_rows == args.reads and abs(late / early - 1) <= GROWTH_LIMIT,
        "resident_mb": [[n, round(memory / 1e6, 1)] for n, memory in looks[:: max(1, len(looks) // SHOWN_LOOKS)]],
    }
    kit.write_result(args.output, "memory", result)
    print(f"{table(result)}\n\ncorrect: {result['correct']}")


def table(data: Json) -> str:
    reads = f"{data['n_reads']:,} reads of {LEAST_BP} to {MOST_BP} bp"
    about = f"{reads} through a pipe, lengths {data['order']}, {data['reads_per_s']:,} reads/s."
    points = [data["resident_mb_after_100000"], data["resident_mb_at_end"], data["resident_mb_most"]]
    lines = [[*(f"{point:.0f} MB" for point in points), f"{100 * data['growth']:+.1f} %"]]
    return f"{about}\n\n{markdown(['after 100,000 reads', 'at the end', 'most', 'growth'], lines)}"


if __name__ == "__main__":
    main()
