"""Why int8 is not offered: a bundle's graph with int8 weights, against float32 torch and the speed of float32.

    python -m benchmarks.speed.int8 wyr_batch/starter -o benchmarks/results/int8.json

ONNX Runtime's dynamic quantisation: int8 weights, one scale a channel, activations to uint8 at run time (seven
bits of weights, as it advises for CPUs without VNNI), in every product with weights. Speeds are rows/s of one batch
of 16 x 251 tokens, in alternation. `correct` says that the float32 file passes its own thresholds; int8 would have
to agree with 99 % of the labels of each rank.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from functools import partial
from pathlib import Path

from benchmarks import kit
from benchmarks.tables import Json, correct, markdown, percent, shown
from wyr_batch.bundle import Bundle, load_bundle
from wyr_batch.engines.onnx import import_onnxruntime
from wyr_batch.host import available_cpus
from wyr_batch.proof.batches import token_arrays
from wyr_batch.proof.compare import THRESHOLDS, compare

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


def measure(bundle: Bundle, folder: Path) -> list[Json]:
    """Return a row for float32 and one for int8."""
    from wyr_batch.export.onnx_file import runner_from_onnx
    from wyr_batch.export.proof import torch_runner

    reference = kit.load_reference(bundle.folder / "checkpoint")
    exact = bundle.verified("onnx", "float32")
    files = {"float32": exact, "int8": quantise(exact, folder)}
    runs = {name: runner_from_onnx(path, available_cpus()) for name, path in files.items()}
    ids, asked = kit.random_batch(ROWS, TOKENS, len(bundle.ranks))
    timings = kit.alternated({name: partial(run, ids, asked) for name, run in runs.items()}, ROUNDS)
    rates = {name: kit.per_s(ROWS, values) for name, values in timings.items()}
    rows = []
    for name, run in runs.items():
        record = compare(
            run,
            torch_runner(reference),
            reference.explanandum.slices,
            bundle.max_tokens,
            thresholds=THRESHOLDS["float32" if name == "float32" else "bfloat16"],
            reads=token_arrays(),
        )
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
                "rows_per_s": kit.spread(rates[name]),
                "times_float32": statistics.median(kit.ratios(rates[name], rates["float32"])),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("bundles", type=Path, nargs="+")
    args = parser.parse_args()
    rows = []
    for path in args.bundles:
        with tempfile.TemporaryDirectory() as folder:
            rows += measure(load_bundle(path), Path(folder))
    kit.write_result(args.output, "int8", {"threads": available_cpus(), "rows": rows})


def table(data: Json) -> str:
    rows, note = correct(data["rows"])
    lines = []
    for row in rows:
        labels = [percent(min(row[f"{kind}label_agreement"])) for kind in ("", "masked_")]
        speed = [shown(row["rows_per_s"], ".1f"), f"{row['times_float32']:.2f}"]
        lines.append([row["model"], row["way"], *labels, f"{row['file_mb']:.1f} MB", *speed])
    about = (
        "Weights of every product as int8, ONNX Runtime, rows of 251 tokens. Labels are those of the worst rank that "
        "agree with float32 torch: 99 % would be needed, so int8 is not offered."
    )
    head = ["model", "way", "labels, plain", "labels, masked", "graph", "rows/s", "times float32"]
    return f"{about}\n\n{markdown(head, lines)}{note}"


if __name__ == "__main__":
    main()
