"""`wyr-batch run` or `wyr-batch export` of this commit beside another commit's, one after the other, on one machine.

    git worktree add ../other COMMIT && python -m venv other.venv
    other.venv/bin/pip install -c constraints.txt -e '../other[train,cpu,openvino]'
    python -m benchmarks.speed.beside run --other other.venv/bin/python -o benchmarks/results/run_beside.json
    python -m benchmarks.speed.beside export --other other.venv/bin/python -o benchmarks/results/export_beside.json

- run: the starter of this commit, simulated reads, ONNX Runtime. Both commits' rows are compared: numbers may be 1e-5
  apart, for batches are composed in another way, the rest is equal. Rates are those that the command's own summary
  says, from the first read on.
- export: the published size with random weights, made once, in float32. What an export proves differs between commits.

Each round is a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import kit
from benchmarks.published_size import make_checkpoints
from benchmarks.tables import Json, markdown, shown
from wyr_batch.bundle import starter_path
from wyr_batch.host import available_cpus

# Older commits cannot be run as a module.
COMMAND = "import sys; from wyr_batch.cli import main; sys.exit(main(sys.argv[1:]))"
WHERE = "import pathlib, wyr_batch; print(pathlib.Path(wyr_batch.__file__).parents[1])"
READ_BP = 250


def wyr_batch(python: str, folder: Path, *words: str) -> None:
    """Run a command of the package that a Python finds."""
    subprocess.run([python, "-c", COMMAND, *words], check=True, cwd=folder)


def commit_of(python: str, folder: Path) -> str:
    """Return the commit that a Python's package is a checkout of."""
    root = subprocess.run([python, "-c", WHERE], check=True, cwd=folder, capture_output=True, text=True).stdout.strip()
    words = ["git", "-C", root, "rev-parse", "HEAD"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def export(folder: Path, pythons: dict[str, str], rounds: int) -> Json:
    """Return seconds of an export, a round, by commit."""
    make_checkpoints(folder)
    checkpoints = ["--explanandum", str(folder / "explanandum"), "--explainer", str(folder / "explainer")]
    words = ["export", *checkpoints, "-o", str(folder / "bundle"), "--overwrite", "--quiet"]
    ways = {way: partial(wyr_batch, python, folder, *words) for way, python in pythons.items()}
    timings = kit.alternated(ways, rounds, warm_up=False)
    seconds = {way: [timing.wall_s for timing in found] for way, found in timings.items()}
    return {"seconds": seconds, "other_over_this": kit.spread(kit.ratios(seconds["other"], seconds["this"]))}


def run(folder: Path, pythons: dict[str, str], rounds: int, n_reads: int) -> Json:
    """Return reads/s, a round, by commit, and whether both wrote the same rows."""
    source, rates = folder / "reads.fastq.gz", {way: list[float]() for way in pythons}
    kit.write_reads(source, n_reads, READ_BP, READ_BP)

    def once(way: str, python: str) -> None:
        words = ["run", str(source), "-m", str(starter_path()), "--runtime", "onnx", "-o", f"{way}.parquet"]
        wyr_batch(python, folder, *words, "--overwrite", "--quiet", "--json", f"{way}.json")
        rates[way].append(json.loads((folder / f"{way}.json").read_text())["reads_per_s"])

    kit.alternated({way: partial(once, way, python) for way, python in pythons.items()}, rounds)
    tables = [pq.read_table(folder / f"{way}.parquet") for way in pythons]
    names = [name for name in tables[0].column_names if name in tables[1].column_names]
    off = max(difference(tables[0][name], tables[1][name]) for name in names)
    counted = {way: found[1:] for way, found in rates.items()}  # the first was to warm up
    return {
        "n_reads": n_reads,
        "read_bp": READ_BP,
        "correct": off <= 1e-5,
        "largest_difference": off,
        "columns": names,
        "reads_per_s": counted,
        "this_over_other": kit.spread(kit.ratios(counted["this"], counted["other"])),
    }


def difference(one: pa.ChunkedArray, other: pa.ChunkedArray) -> float:
    """Return the largest difference of two columns of numbers, of lists or structs of them; of others 0 or infinity."""
    if one.equals(other):
        return 0.0
    if pa.types.is_list(one.type):
        if not pc.list_value_length(one).equals(pc.list_value_length(other)):
            return float("inf")
        return difference(pc.list_flatten(one), pc.list_flatten(other))
    if pa.types.is_struct(one.type):
        return max(difference(*parts) for parts in zip(one.flatten(), other.flatten(), strict=True))
    if not pa.types.is_floating(one.type) or len(one) != len(other):
        return float("inf")
    return float(np.abs(one.to_numpy() - other.to_numpy()).max())


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("what", choices=["run", "export"])
    parser.add_argument("--other", required=True, help="the Python of an environment with the other commit")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--reads", type=int, default=4000)
    args = parser.parse_args()
    pythons = {"this": kit.COMMAND[0], "other": args.other}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        commits = {way: commit_of(python, folder) for way, python in pythons.items()}
        if args.what == "export":
            found = export(folder, pythons, args.rounds)
        else:
            found = run(folder, pythons, args.rounds, args.reads)
    what: dict[str, Any] = {"threads": available_cpus(), "commits": commits, **found}
    kit.write_result(args.output, f"{args.what}_beside", what)


def run_table(data: Json) -> str:
    """Return the table of `run`."""
    if not data["correct"]:
        return "The rows of the two commits differ."
    about = f"{data['n_reads']:,} reads of {data['read_bp']} bp, starter, ONNX Runtime, {data['threads']} threads; "
    rows = [[way, data["commits"][way][:7], shown(kit.spread(data["reads_per_s"][way]))] for way in data["reads_per_s"]]
    ratio = shown(data["this_over_other"], ".2f")
    return f"{about}equal rows.\n\n{markdown(['', 'commit', 'reads/s'], [*rows, ['ratio', '', ratio]])}"


def export_table(data: Json) -> str:
    """Return the table of `export`."""
    about = f"The published size with random weights, float32, {data['threads']} threads."
    rows = [[way, data["commits"][way][:7], shown(kit.spread(data["seconds"][way]))] for way in data["seconds"]]
    ratio = shown(data["other_over_this"], ".2f")
    return f"{about}\n\n{markdown(['', 'commit', 's'], [*rows, ['ratio', '', ratio]])}"


if __name__ == "__main__":
    main()
