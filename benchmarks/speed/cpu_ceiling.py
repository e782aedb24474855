"""How much faster than eager anything could be on this CPU: the published size against the CPU's own products.

    python -m benchmarks.speed.cpu_ceiling -o benchmarks/results/cpu_ceiling.json

- `products`: torch's matrix product alone, of the encoder's widest shape, in GFLOP/s (median, least, most);
- `ways`: float32 torch eager, OpenVINO in float32 and in bfloat16 on one batch of 16 x 251 random tokens, in
  alternation; floating-point operations are counted in the torch module. ONNX Runtime, whose idle threads would slow
  the others, is in `benchmarks.speed.full_size`.

The bfloat16 graph is timed whether or not its calls agree: with random weights they are all but tied, so a bundle
of this model would not hold it. `label_agreement` says how many agree with eager's.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import kit
from benchmarks.published_size import CLASSES, make_checkpoints
from benchmarks.tables import Json, markdown, percent, shown
from wyr_batch.engines.signature import Int32s
from wyr_batch.host import available_cpus

ROWS, TOKENS = 16, 251
WIDTH, WIDE = 512, 4096
PRODUCTS = 50


def product_gflops(dtype: str) -> dict[str, float]:
    """Return GFLOP/s of [ROWS x TOKENS, WIDTH] @ [WIDTH, WIDE] in a precision, over `PRODUCTS` products."""
    import torch

    kind = getattr(torch, dtype)
    a, b = torch.randn(ROWS * TOKENS, WIDTH, dtype=kind), torch.randn(WIDE, WIDTH, dtype=kind)
    with torch.inference_mode():
        timings = kit.repeated(lambda: torch.nn.functional.linear(a, b), PRODUCTS)
    return kit.spread(kit.per_s(2 * ROWS * TOKENS * WIDTH * WIDE / 1e9, timings))


def measure(folder: Path, rounds: int) -> Json:
    """Return operations per row, and rate and agreement of each way."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from wyr_batch.export.graph import graph_module
    from wyr_batch.export.onnx_file import onnx_from_torch

    from wyr_batch.engines.openvino import OpenVinoGraph

    make_checkpoints(folder)
    model, path = kit.load_reference(folder), folder / "model.onnx"
    onnx_from_torch(graph_module(model.explanandum, model.explainer, TOKENS), path)
    ids, asked = kit.random_batch(ROWS, TOKENS, len(CLASSES))
    tensors = torch.from_numpy(ids), torch.from_numpy(asked)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(*tensors)
    gflop = counter.get_total_flops() / ROWS / 1e9

    def eager() -> Int32s:
        with torch.inference_mode():
            calls: Int32s = model(*tensors).explained_ids.numpy()
        return calls

    def run(graph: OpenVinoGraph) -> Int32s:
        return graph.run(ids, asked).explained_ids

    ways: dict[str, Callable[[], Int32s]] = {"eager_float32": eager}
    for dtype in ("float32", "bfloat16"):
        ways[f"openvino_{dtype}"] = partial(run, OpenVinoGraph(path, dtype, available_cpus()))
    calls = {name: way().copy() for name, way in ways.items()}
    rates = {name: kit.per_s(ROWS, values) for name, values in kit.alternated(ways, rounds, warm_up=False).items()}
    return {
        "gflop_per_row": round(gflop, 2),
        "ways": {
            name: {
                "rows_per_s": kit.spread(values),
                "gflops": round(gflop * statistics.median(values), 1),
                "times_eager": statistics.median(kit.ratios(values, rates["eager_float32"])),
                "label_agreement": (calls[name] == calls["eager_float32"]).mean(axis=0).tolist(),
            }
            for name, values in rates.items()
        },
    }


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(available_cpus())
    products = {name: product_gflops(name) for name in ("float32", "bfloat16")}
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), args.rounds)
    result = {"threads": available_cpus(), "products": products, **measured}
    kit.write_result(args.output, "cpu_ceiling", result)
    print(table(result))


def table(data: Json) -> str:
    lines = []
    for name, way in data["ways"].items():
        rates = [shown(way["rows_per_s"], ".2f"), f"{way['times_eager']:.2f}", f"{way['gflops']:.0f}"]
        lines.append([name.replace("_", " "), *rates, percent(min(way["label_agreement"]))])
    products = ", ".join(f"{name} {shown(rate, '.0f')} GFLOP/s" for name, rate in data["products"].items())
    about = (
        f"The published size, one batch of 16 x 251 tokens, {data['gflop_per_row']} GFLOP a row, rounds in "
        f"alternation. A matrix product alone: {products}. bfloat16 is timed here whether or not its calls agree; a "
        "bundle would not hold it below 99.5 %."
    )
    return f"{about}\n\n{markdown(['way', 'rows/s', 'times eager', 'GFLOP/s', 'labels, worst rank'], lines)}"


if __name__ == "__main__":
    main()
