"""`run` over real reads, file by file: does every read come out as a row, and how fast?

    python -m benchmarks.limits.real_reads READS... -o benchmarks/results/real_reads.json

Used with the nanopore reads of Debian's qcat-examples (up to 24 kb) and the MiSeq 16S reads of r-bioc-dada2.
`correct` says that the output's ids and lengths equal the input's, in order, that every mask has one value a token and
lies in [0, 1].
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pysam

import wyr_batch
from benchmarks import kit
from benchmarks.tables import Json, correct, figure, markdown, percent
from wyr_batch.job.config import RunConfig


def measure(path: Path) -> Json:
    """Run one file and compare its output with what pysam reads."""
    import duckdb

    with tempfile.TemporaryDirectory() as tmp:
        masks = Path(tmp) / "masks.parquet"
        stats = wyr_batch.run(RunConfig(inputs=(str(path),), output=masks))
        with pysam.FastxFile(str(path)) as file:
            expected = [(read.name, len(read.sequence or "")) for read in file]
        rows = duckdb.read_parquet(str(masks))
        found = rows.project("read_id, length").fetchall()
        odd = "status <> 'empty' and (len(mask) <> n_tokens or list_min(mask) < 0 or list_max(mask) > 1)"
        n_odd = len(rows.filter(odd).project("read_id").fetchall())
    lengths = np.array([length for _, length in expected])
    return {
        "file": path.name,
        "correct": found == expected and n_odd == 0,
        "read_bp": {"median": float(np.median(lengths)), "max": int(lengths.max())},
        **stats.as_json(),
    }


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("reads", nargs="+", type=Path)
    args = parser.parse_args()
    rows = [measure(path) for path in args.reads]
    kit.write_result(args.output, "real_reads", {"rows": rows})
    print(table({"rows": rows}))


def table(data: Json) -> str:
    rows, note = correct(data["rows"])
    lines = []
    for row in rows:
        lengths = f"{row['read_bp']['median']:,.0f}, {row['read_bp']['max']:,}"
        rates = [figure(row["reads_per_s"]), f"{row['bases'] / row['wall_s'] / 1e6:.2f}"]
        lines.append([row["file"], f"{row['reads']:,}", lengths, *rates, percent(row["padding_share"])])
    about = "Nanopore reads of Debian's qcat-examples and MiSeq 16S reads of r-bioc-dada2, the starter, one run each."
    head = ["file", "reads", "median and longest, bp", "reads/s", "Mbases/s", "padding"]
    return f"{about}\n\n{markdown(head, lines)}{note}"


if __name__ == "__main__":
    main()
