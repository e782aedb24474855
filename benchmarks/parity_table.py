"""Every precision and runtime of a bundle against float32 torch, those that fail included: JSON, and a table on stdout.

    wyr-batch export --fp16 -o bundle
    python benchmarks/parity_table.py bundle -o benchmarks/results/parity.json

On the reads that come with the exporter. `rows_per_s` is of one batch of 16 x 251 tokens.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from common import environment
from wyr_batch.export import proof

from wyr_batch.bundle import load_bundle
from wyr_batch.host import available_cpus
from wyr_batch.models.checkpoints import load_explainer, load_explanandum
from wyr_batch.models.fused import Fused
from wyr_batch.proof.compare import token_arrays

DTYPES = ("float32", "float16", "bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    bundle = load_bundle(args.bundle)
    checkpoint = bundle.folder / "checkpoint"
    explanandum, ranks = load_explanandum(checkpoint / "explanandum")
    reference = Fused(explanandum, load_explainer(checkpoint / "explainer")).eval()
    reads = token_arrays()
    found, speeds = proof.prove(bundle.folder, reference, bundle.max_tokens, DTYPES, reads, available_cpus(), print)
    records = {f"onnx {r.thresholds.dtype}": r for r in found["files"].values()} | found["runtimes"]
    print("| way | verdict | labels, plain | labels, masked | mask max | mask mean | probs max | rows/s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, r in records.items():
        plain, masked = (f"{100 * min(shares):.2f} %" for shares in (r.label_agreement, r.masked_label_agreement))
        print(
            f"| {name} | {r.verdict} | {plain} | {masked} | {r.max_abs_diff['mask']:.1e} "
            f"| {r.mask_mean_abs_diff:.1e} | {r.max_abs_diff['probs']:.1e} | {speeds[name]:.0f} |"
        )
    result = {
        "benchmark": "parity",
        **environment(),
        "bundle": bundle.name,
        "bundle_sha256": bundle.sha256,
        "ranks": [rank.name for rank in ranks],
        "records": {name: record.to_json() for name, record in records.items()},
        "rows_per_s": speeds,
    }
    args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
