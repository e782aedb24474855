"""The parity record of a bundle as JSON among the results, and as the Markdown table of docs/engines.md on stdout.

wyr-batch export --fp16 --dtype bfloat16 -o bundle
python benchmarks/parity_table.py bundle -o benchmarks/results/parity.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from common import environment

from wyr_batch.bundle import load_bundle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", help="left out: the built-in starter")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    bundle = load_bundle(args.bundle)
    records = {**{f"onnx: {name}": r for name, r in bundle.parity.items()}, **bundle.runtime_parity}
    ranks = [rank.name for rank in bundle.ranks]
    print("| way | labels, plain | labels, masked | mask max | mask mean | probs max | tolerance needed | rows/s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, r in records.items():
        key = name if name in bundle.rows_per_s else f"onnx {r['thresholds']['dtype']}"
        plain, masked = (f"{100 * min(r[field]):.2f} %" for field in ("label_agreement", "masked_label_agreement"))
        worst = r["max_abs_diff"]
        print(
            f"| {name} | {plain} | {masked} | {worst['mask']:.1e} | {r['mask_mean_abs_diff']:.1e} | "
            f"{worst['probs']:.1e} | {r['tolerance_needed']:.1e} | {bundle.rows_per_s[key]:.0f} |"
        )
    result = {
        "benchmark": "parity",
        **environment(),
        "bundle": bundle.name,
        "bundle_sha256": bundle.sha256,
        "ranks": ranks,
        "records": records,
        "rows_per_s": bundle.rows_per_s,
    }
    args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
