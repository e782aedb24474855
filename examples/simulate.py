"""How examples/reads.fastq.gz and examples/truth.tsv were made.

    wyr-batch train prepare -o markers.parquet          # real marker genes of Debian's metaphlan2-data (Expat licence)
    python examples/simulate.py markers.parquet examples

1,000 markers of the test part (never trained on, never used for a choice), drawn so that every class of the starter
has its share, at least 250 bp long; one MiSeq read of 250 bp each, simulated with ART (Debian's
art-nextgen-simulation-tools, profile MSv3, seed 7), in shuffled order. The same inputs give the same reads; ART's and
gzip's versions may change bytes.
"""

from __future__ import annotations

import csv
import gzip
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from wyr_batch.train.data.batches import choose_ranks, load_reads, read_table, sampling_weights
from wyr_batch.train.data.prepare import RANKS

N_READS = 1000
READ_BP = 250
MIN_SEQUENCES = 780
SEED = 7


def main(parquet: Path, folder: Path) -> None:
    table = read_table(parquet)
    ranks = choose_ranks(table, RANKS, MIN_SEQUENCES)
    reads = load_reads(table, ranks, "test", headers=True)
    weights = sampling_weights(reads.labels, null_leaf_weight=8.0) * (reads.lengths >= READ_BP)
    rng = np.random.default_rng(SEED)
    rows = rng.choice(len(reads), N_READS, replace=False, p=weights / weights.sum())
    with tempfile.TemporaryDirectory() as tmp:
        fasta, prefix = Path(tmp) / "markers.fasta", Path(tmp) / "simulated"
        with fasta.open("w") as file:
            for name, row in enumerate(rows):
                sequence = reads.bases[reads.offsets[row] : reads.offsets[row + 1]].tobytes().decode()
                file.write(f">m{name}\n{sequence}\n")
        art = ["art_illumina", "-ss", "MSv3", "-i", str(fasta), "-l", str(READ_BP), "-c", "1", "-na", "-q"]
        subprocess.run([*art, "-rs", str(SEED), "-o", str(prefix)], check=True, stdout=subprocess.DEVNULL)
        lines = prefix.with_suffix(".fq").read_text().splitlines()
    records = {int(lines[i][2:].split("-")[0]): (lines[i + 1], lines[i + 3]) for i in range(0, len(lines), 4)}
    order = rng.permutation(sorted(records))
    with (
        gzip.GzipFile(folder / "reads.fastq.gz", "wb", compresslevel=9, mtime=0) as fastq,
        (folder / "truth.tsv").open("w", newline="") as truth,
    ):
        writer = csv.writer(truth, delimiter="\t", lineterminator="\n")
        writer.writerow(["read_id", "marker", *(rank.name for rank in ranks)])
        for number, name in enumerate(order, start=1):
            bases, qualities = records[name]
            fastq.write(f"@read{number:04d}\n{bases}\n+\n{qualities}\n".encode())
            row = rows[name]
            classes = zip(ranks, reads.labels[row], strict=True)
            labels = [rank.labels[label] if label >= 0 else "" for rank, label in classes]
            writer.writerow([f"read{number:04d}", reads.headers[row], *labels])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
