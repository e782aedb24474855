"""`run` over real reads, file by file: does every read come out as a row, and how fast?

    python benchmarks/real_reads.py READS... -o benchmarks/results/real_reads.json

Used with the nanopore reads of Debian's qcat-examples (up to 24 kb) and the MiSeq 16S reads of r-bioc-dada2.
`correct` says that the output's ids and lengths equal the input's, in order, that every mask has one value a token and
lies in [0, 1].
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import duckdb
import numpy as np
import pysam
from common import environment

import wyr_batch
from wyr_batch.job.config import RunConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reads", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    rows = []
    for path in args.reads:
        with tempfile.TemporaryDirectory() as tmp:
            masks = Path(tmp) / "masks.parquet"
            stats = wyr_batch.run(RunConfig(inputs=(str(path),), output=masks))
            with pysam.FastxFile(str(path)) as file:
                expected = [(read.name, len(read.sequence)) for read in file]
            table = duckdb.read_parquet(str(masks))
            found = table.project("read_id, length").fetchall()
            odd = "status <> 'empty' and (len(mask) <> n_tokens or list_min(mask) < 0 or list_max(mask) > 1)"
            n_odd = len(table.filter(odd).project("read_id").fetchall())
        lengths = np.array([length for _, length in expected])
        rows.append(
            {
                "file": path.name,
                "correct": found == expected and n_odd == 0,
                "read_bp": {"median": float(np.median(lengths)), "max": int(lengths.max())},
                **stats.as_json(),
            }
        )
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps({"benchmark": "real_reads", **environment(), "rows": rows}, indent=2) + "\n")
    print(args.output.read_text())


if __name__ == "__main__":
    main()
