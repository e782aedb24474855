"""Why int8 is not offered: a bundle's graph with int8 weights, against float32 torch and the speed of float32.

    python benchmarks/int8.py wyr_batch/starter -o benchmarks/results/int8.json

ONNX Runtime's dynamic quantisation: int8 weights, one scale a channel, activations to uint8 at run time (seven
bits of weights, as it advises for CPUs without VNNI), in every product with weights. Speeds are rows/s of one batch
of 16 x 251 tokens, in alternation. `correct` says that the float32 file passes its own thresholds; int8 would have
to agree with 99 % of the labels of each rank.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from bench_run import timed
from common import environment
from wyr_batch.export.onnx_file import runner_from_onnx
from wyr_batch.export.torch_proof import FLOAT32, THRESHOLDS, compare

from wyr_batch.bundle import Bundle, load_bundle
from wyr_batch.engines.onnx import import_onnxruntime
from wyr_batch.host import available_cpus
from wyr_batch.models.checkpoints import load_explainer, load_explanandum
from wyr_batch.models.fused import Fused
from wyr_batch.proof.compare import token_arrays

ROWS, TOKENS, ROUNDS = 16, 251, 5
LEAST_AGREEMENT = 0.99


def quantise(source: Path, folder: Path) -> Path:
    """Write the graph with int8 weights; returns its path."""
    folded = folder / "folded.onnx"
    onnxruntime = import_onnxruntime()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    options = onnxruntime.SessionOptions()
    # Casts of stored float16 weights become weights, which is what the quantiser looks for.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(source, options, ["CPUExecutionProvider"])
    made = folder / "int8.onnx"
    quantize_dynamic(
        folded,
        made,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True},
    )
    return made


def measure(bundle: Bundle, folder: Path) -> list[dict[str, Any]]:
    """Return a row for float32 and one for int8."""
    explanandum, _ = load_explanandum(bundle.folder / "checkpoint" / "explanandum")
    reference = Fused(explanandum, load_explainer(bundle.folder / "checkpoint" / "explainer")).eval()
    exact = bundle.verified("onnx", "float32")
    files = {"float32": exact, "int8": quantise(exact, folder)}
    runs = {name: runner_from_onnx(path, available_cpus()) for name, path in files.items()}
    ids = np.random.default_rng(0).integers(6, 4102, (ROWS, TOKENS)).astype(np.int32)
    ids[:, 0] = 3
    asked = np.full((ROWS, len(bundle.ranks)), -1, np.int32)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS + 1):
        for name, run in runs.items():
            seconds[name].append(timed(lambda run=run: run(ids, asked)))
    rows = []
    for name, run in runs.items():
        limits = FLOAT32 if name == "float32" else THRESHOLDS["bfloat16"]
        record = compare(run, reference, bundle.max_tokens, thresholds=limits, reads=token_arrays())
        rates = [ROWS / s for s in seconds[name][1:]]
        ratios = [a / b for a, b in zip(seconds["float32"][1:], seconds[name][1:], strict=True)]
        least = min(*record.label_agreement, *record.masked_label_agreement)
        rows.append(
            {
                "model": bundle.name,
                "way": name,
                "correct": name != "float32" or record.verdict == "passed",
                "label_agreement": record.label_agreement,
                "masked_label_agreement": record.masked_label_agreement,
                "mask_mean_abs_diff": record.mask_mean_abs_diff,
                "enough_labels": least >= LEAST_AGREEMENT,
                "file_mb": files[name].stat().st_size / 1e6,
                "rows_per_s": {"median": statistics.median(rates), "min": min(rates), "max": max(rates)},
                "times_float32": statistics.median(ratios),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    rows = []
    for path in args.bundles:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(load_bundle(path), Path(folder))
    result = {"benchmark": "int8", **environment(), "threads": available_cpus(), "rows": rows}
    args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
