"""Everything about an NVIDIA GPU in one command: is it right, how fast is it, and where does the time go?

    python -m benchmarks.speed.gpu -o benchmarks/results/gpu.json                       # on the GPU machine
    python -m benchmarks.speed.gpu --device cpu --quick -o /tmp/dry_run.json            # the dry run, anywhere

Needs a checkout and torch, numpy, pyarrow, click, pysam and rich; with onnx and onnxscript it exports graphs, with
tensorrt and onnxruntime-gpu it runs them. What is missing is said in its part, and the rest goes on; so does a part
that fails. The JSON is written after each part, and a row is timed only if its runtime agreed with float32.

Parts: facts, copies, matrix_peak, models, parity, sweep, headline, profile. TensorRT plans and proofs go to a cache of
the kit's own. MFU is the arithmetic of both encoder passes over real tokens, against measured matrix products.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import wyr_batch
from benchmarks import kit
from benchmarks.speed.gpu import engines, kernels, models, whole
from benchmarks.speed.gpu.machine import Machine, tried

PARTS: dict[str, Callable[[Machine], dict[str, Any]]] = {
    "facts": kernels.facts,
    "copies": kernels.copies,
    "matrix_peak": kernels.matrix_peak,
    "models": models.models,
    "parity": engines.parity,
    "sweep": engines.sweep,
    "headline": whole.headline,
    "profile": whole.profile,
}


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu for the dry run")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does every part work?")
    parser.add_argument("--parts", nargs="+", help="some parts only, in their order")
    args = parser.parse_args()
    unknown = sorted(set(args.parts or ()) - set(PARTS))
    if unknown:
        parser.error(f"--parts: got {', '.join(unknown)}, expected some of {', '.join(PARTS)}")
    wyr_batch.__path__.append(str(kit.ROOT))  # wyr_batch.export, where the checkout is not installed
    asked = {"asked_device": args.device, "quick": args.quick}
    seconds: dict[str, float] = {}
    parts: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WYR_CACHE"] = str(Path(folder) / "cache")
        machine = Machine("cuda:0" if args.device == "cuda" else args.device, args.quick, Path(folder))
        for name, part in PARTS.items():
            if args.parts and name not in args.parts:
                continue
            start = time.perf_counter()
            outcome = parts[name] = tried(part, machine)
            seconds[name] = round(time.perf_counter() - start, 1)
            kit.write_result(args.output, "gpu", {**asked, "seconds": seconds, "parts": parts})
            what = outcome.get("failed") or outcome.get("skipped") or "done"
            print(f"{name}: {what} ({seconds[name]} s)", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
