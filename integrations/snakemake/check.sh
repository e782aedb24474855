#!/usr/bin/env bash
# Run the workflow and the wrapper's own test on the example reads, from start to end:
#   PATH=/path/to/snakemake/bin:$PATH integrations/snakemake/check.sh
# snakemake (9 or newer) and wyr-batch must be on PATH; nothing is downloaded and nothing is written outside a new folder.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
examples=$(cd "$here/../../examples" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

say() { printf '\n== %s\n' "$*"; }
run() {
    snakemake --cores 2 "$@" > snakemake.txt 2>&1 || { cat snakemake.txt; return 1; }
    grep -E '^(local)?rule|^    (input|output):|^Nothing to be done' snakemake.txt
}
rows() { wyr-batch info --json "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["rows"])'; }
expect() { [ "$2" = "$3" ] || { echo "$1: got $2, expected $3"; exit 1; }; echo "$1: $2"; }

say "$(snakemake --version | sed 's/^/snakemake /'), $(wyr-batch --version)"
mkdir -p reads master/bio/wyr-batch
cp "$examples/reads.fastq.gz" reads/example.fastq.gz

say "the workflow: reads -> masks -> report, Kraken-style table"
run --snakefile "$here/workflow/Snakefile"
expect "rows of results/example.parquet" "$(rows results/example.parquet)" 1000
cat logs/example.*.log
head -n 4 results/example.report.txt

say "the workflow again: nothing to do"
run --snakefile "$here/workflow/Snakefile"

say "the wrapper's test, single reads and pairs"
ln -s "$here/wrapper" master/bio/wyr-batch/run
cp reads/example.fastq.gz reads/pair_R1.fastq.gz
cp reads/example.fastq.gz reads/pair_R2.fastq.gz
run --snakefile "$here/wrapper/test/Snakefile" --wrapper-prefix "file://$work/" \
    masks/example.parquet masks_paired/pair.parquet
expect "rows of masks/example.parquet" "$(rows masks/example.parquet)" 1000
expect "rows of masks_paired/pair.parquet" "$(rows masks_paired/pair.parquet)" 2000

say "a file cut short: the job fails, its output is not there, and the log says why"
head -c 100000 reads/example.fastq.gz > reads/cut.fastq.gz
if run --snakefile "$here/wrapper/test/Snakefile" --wrapper-prefix "file://$work/" masks/cut.parquet > failed.txt; then
    echo "the job did not fail"
    exit 1
fi
[ ! -e masks/cut.parquet ]
tail -n 2 logs/cut.log

say "the file made whole: the job goes on after the reads that were finished"
cp reads/example.fastq.gz reads/cut.fastq.gz
run --snakefile "$here/wrapper/test/Snakefile" --wrapper-prefix "file://$work/" masks/cut.parquet
expect "rows of masks/cut.parquet" "$(rows masks/cut.parquet)" 1000
tail -n 2 logs/cut.log

say "all of it in $SECONDS s"
