"""Everything about an NVIDIA GPU in one command: is it right, how fast is it, and where does the time go?

    python benchmarks/gpu.py -o benchmarks/results/gpu.json                       # on the GPU machine
    python benchmarks/gpu.py --device cpu --quick -o /tmp/dry_run.json            # the dry run, anywhere

Needs a checkout and torch, numpy, pyarrow, click, pysam and rich; with onnx and onnxscript it exports graphs, with
tensorrt and onnxruntime-gpu it runs them. What is missing is said in its part, and the rest goes on; so does a part
that fails. The JSON is written after each part, and a row is timed only if its runtime agreed with float32.

Parts: facts, copies, matrix_peak, models, parity, sweep, headline, profile; see gpu_sections.py. TensorRT plans and
proofs go to a cache of the kit's own. MFU is the arithmetic of both encoder passes over real tokens, against measured
matrix products.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def use_checkout() -> None:
    """Make wyr_batch and wyr_batch.export those of this checkout, installed or not."""
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
    import wyr_batch

    if "export" not in {path.name for path in map(Path, wyr_batch.__path__)} and not _installed():
        import importlib.util

        spec = importlib.util.spec_from_file_location(
            "wyr_batch.export", ROOT / "export" / "__init__.py", submodule_search_locations=[str(ROOT / "export")]
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["wyr_batch.export"] = module
        spec.loader.exec_module(module)


def _installed() -> bool:
    import importlib.util

    return importlib.util.find_spec("wyr_batch.export") is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu for the dry run")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does every part work?")
    parser.add_argument("--parts", nargs="+", help="some parts only, in their order")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    use_checkout()
    from common import environment
    from gpu_sections import SECTIONS, Kit, tried

    unknown = sorted(set(args.parts or ()) - set(SECTIONS))
    if unknown:
        parser.error(f"--parts: got {', '.join(unknown)}, expected some of {', '.join(SECTIONS)}")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"benchmark": "gpu", **environment(), "asked_device": args.device, "quick": args.quick}
    result["seconds"], result["parts"] = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WYR_CACHE"] = str(Path(folder) / "cache")
        kit = Kit("cuda:0" if args.device == "cuda" else args.device, args.quick, Path(folder))
        for name, part in SECTIONS.items():
            if args.parts and name not in args.parts:
                continue
            start = time.perf_counter()
            result["parts"][name] = outcome = tried(lambda part=part: part(kit))
            result["seconds"][name] = round(time.perf_counter() - start, 1)
            args.output.write_text(json.dumps(result, indent=1) + "\n")
            said = outcome.get("failed") or outcome.get("skipped") or "done"
            print(f"{name}: {said} ({result['seconds'][name]} s)", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
