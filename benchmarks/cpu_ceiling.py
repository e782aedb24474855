"""How much faster than eager anything could be on this CPU: the published size against the CPU's own products.

    python benchmarks/cpu_ceiling.py -o benchmarks/results/cpu_ceiling.json

- `products`: torch's matrix product alone, of the encoder's widest shape, in GFLOP/s (median, least, most);
- `ways`: float32 torch eager, OpenVINO in float32 and in bfloat16 on one batch of 16 x 251 random tokens, in
  alternation; floating-point operations are counted in the torch module. ONNX Runtime, whose idle threads would slow
  the others, is in `bench_full_size.py`.

The bfloat16 graph is timed whether or not its calls agree: with random weights they are all but tied, so a bundle
of this model would not hold it. `label_agreement` says how many agree with eager's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_full_size import spread
from bench_run import timed
from common import environment
from full_size import CLASSES, make_checkpoints
from torch.utils.flop_counter import FlopCounterMode
from wyr_batch.export.graph import graph_module
from wyr_batch.export.onnx_file import onnx_from_torch

from wyr_batch.engines.openvino import OpenVinoGraph
from wyr_batch.host import available_cpus
from wyr_batch.models.checkpoints import load_explainer, load_explanandum
from wyr_batch.models.fused import Fused

ROWS, TOKENS = 16, 251
WIDTH, WIDE = 512, 4096
PRODUCT_S = 3.0


def product_gflops(dtype: torch.dtype) -> dict[str, float]:
    """Return GFLOP/s of [ROWS x TOKENS, WIDTH] @ [WIDTH, WIDE], over `PRODUCT_S` seconds."""
    a, b = torch.randn(ROWS * TOKENS, WIDTH, dtype=dtype), torch.randn(WIDE, WIDTH, dtype=dtype)
    with torch.inference_mode():
        torch.nn.functional.linear(a, b)
        rates, end = [], time.perf_counter() + PRODUCT_S
        while time.perf_counter() < end:
            seconds = timed(lambda: torch.nn.functional.linear(a, b))
            rates.append(2 * a.shape[0] * WIDTH * WIDE / seconds / 1e9)
    return spread(rates)


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """Return operations per row, and rate and agreement of each way."""
    threads = available_cpus()
    make_checkpoints(folder)
    explanandum, explainer = load_explanandum(folder / "explanandum")[0], load_explainer(folder / "explainer")
    model = Fused(explanandum, explainer).eval()
    path = folder / "model.onnx"
    onnx_from_torch(graph_module(explanandum, explainer, TOKENS), path)
    ids = np.random.default_rng(0).integers(6, 4102, (ROWS, TOKENS)).astype(np.int32)
    ids[:, 0] = 3
    asked = np.full((ROWS, len(CLASSES)), -1, np.int32)
    given = torch.from_numpy(ids), torch.from_numpy(asked)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(*given)
    gflop = counter.get_total_flops() / ROWS / 1e9

    def eager() -> np.ndarray:
        with torch.inference_mode():
            return model(*given).explained_ids.numpy()

    ways: dict[str, Callable[[], np.ndarray]] = {"eager_float32": eager}
    for dtype in ("float32", "bfloat16"):
        graph = OpenVinoGraph(path, dtype, threads)
        ways[f"openvino_{dtype}"] = lambda g=graph: g.run(ids, asked).explained_ids
    calls = {name: way().copy() for name, way in ways.items()}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for n in range(rounds):
        for name, way in list(ways.items())[:: -1 if n % 2 else 1]:
            rates[name].append(ROWS / timed(way))
    return {
        "gflop_per_row": round(gflop, 2),
        "ways": {
            name: {
                "rows_per_s": spread(values),
                "gflops": round(gflop * statistics.median(values), 1),
                "times_eager": statistics.median(v / e for v, e in zip(values, rates["eager_float32"], strict=True)),
                "label_agreement": (calls[name] == calls["eager_float32"]).mean(axis=0).tolist(),
            }
            for name, values in rates.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(available_cpus())
    products = {name: product_gflops(getattr(torch, name)) for name in ("float32", "bfloat16")}
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), args.rounds)
    result = {
        "benchmark": "cpu_ceiling",
        **environment(),
        "threads": available_cpus(),
        "products": products,
        **measured,
    }
    args.output.write_text(json.dumps(result, indent=1) + "\n")
    print(args.output.read_text())


if __name__ == "__main__":
    main()
