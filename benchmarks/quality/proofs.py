"""Every precision and runtime of a bundle against float32 torch, those that fail included: JSON, and a table on stdout.

    wyr-batch export --fp16 -o bundle
    python -m benchmarks.quality.proofs bundle -o benchmarks/results/parity.json

On the reads that come with the exporter. `rows_per_s` is of one batch of 16 x 251 tokens.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import kit
from benchmarks.tables import Json, markdown, percent
from wyr_batch.bundle import load_bundle
from wyr_batch.host import available_cpus
from wyr_batch.proof.batches import token_arrays

DTYPES = ("float32", "float16", "bfloat16")


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("bundle", type=Path)
    args = parser.parse_args()
    from wyr_batch.export.proof import prove

    bundle = load_bundle(args.bundle)
    reference = kit.load_reference(bundle.folder / "checkpoint")
    sizes = (bundle.max_tokens, DTYPES, token_arrays(), available_cpus())
    found, speeds = prove(bundle.folder, reference, *sizes, print)
    records = {f"onnx {record.thresholds.dtype}": record for record in found["files"].values()} | found["runtimes"]
    result = {
        "bundle": bundle.name,
        "bundle_sha256": bundle.sha256,
        "ranks": [rank.name for rank in bundle.ranks],
        "records": {name: record.to_json() for name, record in records.items()},
        "rows_per_s": speeds,
    }
    kit.write_result(args.output, "parity", result)
    print(table(result))


def table(data: Json) -> str:
    lines = []
    for name, record in data["records"].items():
        labels = [percent(min(record[f"{kind}label_agreement"]), 2) for kind in ("", "masked_")]
        worst = record["max_abs_diff"]
        differences = (worst["mask"], record["mask_mean_abs_diff"], worst["probs"])
        off = ["not finite" if value is None else f"{value:.1e}" for value in differences]
        lines.append([name, record["verdict"], *labels, *off, f"{data['rows_per_s'][name]:.0f}"])
    head = ["way", "verdict", "labels, plain", "labels, masked", "mask, max", "mask, mean", "probabilities, max"]
    return markdown([*head, "rows/s"], lines)


if __name__ == "__main__":
    main()
