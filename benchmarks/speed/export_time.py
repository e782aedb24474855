"""How long `wyr-batch export` takes for the published size, in this commit and in another, one after the other.

    git worktree add ../other COMMIT && python -m venv other.venv
    other.venv/bin/pip install -c constraints.txt -e '../other[train,cpu,openvino]'
    python -m benchmarks.speed.export_time --other other.venv/bin/python -o benchmarks/results/export_time.json

The checkpoints are made once (random weights, seeded) and exported in float32, each time in a process of its own. What
an export proves differs between commits: the JSON names the commits.
"""

from __future__ import annotations

import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import kit
from benchmarks.published_size import make_checkpoints
from wyr_batch.host import available_cpus

# Older commits cannot be run as a module.
COMMAND = "import sys; from wyr_batch.cli import main; sys.exit(main(sys.argv[1:]))"
WHERE = "import pathlib, wyr_batch; print(pathlib.Path(wyr_batch.__file__).parents[1])"


def export(python: str, folder: Path) -> None:
    """Export the folder's checkpoints with the package that a Python finds."""
    words = ["-c", COMMAND, "export", "--explanandum", str(folder / "explanandum")]
    words += ["--explainer", str(folder / "explainer"), "-o", str(folder / "bundle"), "--overwrite", "--quiet"]
    subprocess.run([python, *words], check=True, cwd=folder)


def commit_of(python: str, folder: Path) -> str:
    """Return the commit that a Python's package is a checkout of."""
    root = subprocess.run([python, "-c", WHERE], check=True, cwd=folder, capture_output=True, text=True).stdout.strip()
    words = ["git", "-C", root, "rev-parse", "HEAD"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("--other", required=True, help="the Python of an environment with the other commit")
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    pythons = {"this": kit.COMMAND[0], "other": args.other}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_checkpoints(folder)
        commits = {way: commit_of(python, folder) for way, python in pythons.items()}
        ways = {way: partial(export, python, folder) for way, python in pythons.items()}
        timings = kit.alternated(ways, args.rounds, warm_up=False)
    seconds = {way: [timing.wall_s for timing in rounds] for way, rounds in timings.items()}
    found: dict[str, Any] = {
        "threads": available_cpus(),
        "commits": commits,
        "seconds": seconds,
        "other_over_this": kit.ratios(seconds["other"], seconds["this"]),
    }
    kit.write_result(args.output, "export_time", found)


if __name__ == "__main__":
    main()
