"""Everything about an NVIDIA GPU in one command of ten minutes: is it right, how fast is it, where does the time go?

    python -m benchmarks.speed.gpu -o benchmarks/results/gpu.json                       # on the GPU machine
    python -m benchmarks.speed.gpu --device cpu --quick -o /tmp/dry_run.json            # the dry run, anywhere

Needs a checkout and torch, numpy, pyarrow, click and onnx; where onnxscript, onnxruntime-gpu or tensorrt are, graphs
are exported and run. What is missing is said in its part, and the rest goes on.

Parts come in the order of their worth, each with a limit of time. They run in processes of their own: no two runtimes
in one, and what a part has found is kept as it is found, so that an exception, a crash or the end of its time costs a
part what it had not yet measured, and nothing of another. The JSON is written after each part.

Nothing is held back for being wrong: each row says what the proof said of its runtime. MFU is the arithmetic of both
encoder passes over real tokens, against what NVIDIA states for an H100 and against this model's own matrix products.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks import kit
from benchmarks.speed.gpu.part import read_part

# Seconds each part may take; parts of one line share a process.
PROCESSES: tuple[dict[str, float], ...] = (
    {"facts": 60, "ceilings": 60, "models": 60, "proof": 150, "sweep": 90},
    {"headline": 120},
    {"training": 60},
    {"split": 60, "starter": 45, "float32": 60, "graphs": 30},
    {"changes": 120},
    {"exported": 90},
    {"onnx": 60},
    {"tensorrt": 240},
)
PARTS = tuple(name for process in PROCESSES for name in process)
QUICK = 30  # times as long for the dry run: it measures nothing, and may have slow company
POLL_S, LAST_S = 0.1, 20.0


class Conductor:
    """Starts processes, keeps to the limits, and writes what there is after each part."""

    def __init__(self, output: Path, folder: Path, command: Sequence[str], asked: dict[str, Any], end: float) -> None:
        """
        Args:
            folder: where the parts leave their results.
            command: runs the parts whose names follow it.
            asked: what goes to the top of the JSON.
            end: of `time.monotonic`, when no part goes on.
        """
        self._output, self._folder, self._command, self._asked, self._end = output, folder, command, asked, end
        self._parts: dict[str, Any] = {}

    def run(self, limits: dict[str, float]) -> None:
        """Run parts in one process, and after one that did not end well the others in another."""
        names = list(limits)
        while names and time.monotonic() < self._end:
            process = subprocess.Popen([*self._command, *names], cwd=kit.ROOT)
            try:
                goes_on = True
                while names and goes_on:
                    name = names.pop(0)
                    goes_on = self._follow(process, name, limits[name])
                with suppress(subprocess.TimeoutExpired):
                    process.wait(LAST_S)
            finally:
                process.kill()
                process.wait()
        for name in names:
            self._keep(name, {"cut": "not begun: the time of all parts is up"})

    def _follow(self, process: subprocess.Popen[bytes], name: str, limit_s: float) -> bool:
        """Wait for a part, write down how it ended, and say whether the process goes on."""
        start = time.monotonic()
        until = min(start + limit_s, self._end)
        ended: dict[str, Any] = {}
        while not read_part(self._folder, name).get("done"):
            code = process.poll()
            if code is not None and not read_part(self._folder, name).get("done"):
                ended = {"failed": f"its process ended with {code}"}
                break
            if time.monotonic() > until:
                ended = {"cut": f"after {time.monotonic() - start:.0f} s"}
                break
            time.sleep(POLL_S)
        if ended:
            process.kill()
        found = {**read_part(self._folder, name), **ended, "seconds": round(time.monotonic() - start, 1)}
        self._keep(name, found)
        return not ended and "failed" not in found

    def _keep(self, name: str, found: dict[str, Any]) -> None:
        """Write the JSON with one part more, and say so."""
        self._parts[name] = {key: value for key, value in found.items() if key != "done"}
        kit.write_result(self._output, "gpu", {**self._asked, "parts": self._parts})
        what = next((f"{word}: {found[word]}" for word in ("failed", "skipped", "cut") if word in found), "done")
        print(f"{name}: {what} ({found.get('seconds', 0)} s)", file=sys.stderr, flush=True)


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu for the dry run")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does every part work?")
    parser.add_argument("--parts", nargs="+", help="some parts only, in their order")
    parser.add_argument("--minutes", type=float, default=9.5, help="for all parts together")
    args = parser.parse_args()
    wanted = args.parts or PARTS
    if unknown := sorted(set(wanted) - set(PARTS)):
        parser.error(f"--parts: got {', '.join(unknown)}, expected some of {', '.join(PARTS)}")
    device = "cuda:0" if args.device == "cuda" else args.device
    asked = {"asked_device": device, "quick": args.quick, "minutes": args.minutes}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.speed.gpu.part", folder, "--device", device]
        command += ["--quick"] if args.quick else []
        conductor = Conductor(args.output, Path(folder), command, asked, time.monotonic() + 60 * args.minutes)
        for process in PROCESSES:
            times = QUICK if args.quick else 1
            conductor.run({name: times * limit for name, limit in process.items() if name in wanted})


if __name__ == "__main__":
    main()
