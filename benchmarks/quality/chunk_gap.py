"""Are relevant chunks called right more often than not-relevant ones, or is it chance? Bootstrap over reads.

    python -m benchmarks.quality.chunk_gap markers.parquet -o benchmarks/results/starter/chunk_gap.json

Rows 6 and 7 of Table 1 as `wyr-batch evaluate` makes them, on the starter, and the differences of balanced accuracy
and of the share of reads that keep the plain call, with 95 % intervals: reads drawn again with replacement, the
same ones for both rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import kit
from wyr_batch.bundle import starter_path

WINDOW_BP, DRAWS = 1500, 1000
Ints = kit.Ints


def accuracy(labels: Ints, plain: Ints, called: Ints) -> float:
    """Return the balanced accuracy of the chunks, of reads that have one."""
    from wyr_batch.train.measure.metrics import balanced_accuracy

    return float(balanced_accuracy(np.where(called >= 0, labels, -1), called))


def same_call(labels: Ints, plain: Ints, called: Ints) -> float:
    """Return the share of chunks that are called as the plain read is."""
    return float((plain == called)[called >= 0].mean())


def gap(measure: Callable[..., float], labels: Ints, plain: Ints, chunks: Ints, seed: int) -> dict[str, Any]:
    """Return both rows of one rank, their difference and its interval.

    Args:
        labels, plain: int64 [n]; chunks: int64 [n, 2], not-relevant first, -1 where a read has none.
    """

    def rows(of: Ints) -> tuple[float, float]:
        no, yes = (measure(labels[of], plain[of], chunks[of, kind]) for kind in (0, 1))
        return yes, no

    yes, no = rows(np.arange(len(labels)))
    rng = np.random.default_rng(seed)
    draws = [np.subtract(*rows(rng.integers(0, len(labels), len(labels)))) for _ in range(DRAWS)]
    low, high = np.percentile(draws, [2.5, 97.5]).round(4).tolist()
    return {
        "relevant": round(yes, 4),
        "not_relevant": round(no, 4),
        "difference": round(yes - no, 4),
        "95%": [low, high],
    }


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("data", type=Path, help="what wyr-batch train prepare wrote")
    parser.add_argument("--split", default="test")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    import torch
    from wyr_batch.train.data.batches import evaluation_batch, evaluation_batches
    from wyr_batch.train.data.labelled import load_reads, read_table
    from wyr_batch.train.measure.chunks import classify_chunks
    from wyr_batch.train.measure.explained import explain

    from wyr_batch.models.checkpoints import load_explainer, load_explanandum

    explanandum, ranks = load_explanandum(starter_path() / "checkpoint" / "explanandum")
    explainer = load_explainer(starter_path() / "checkpoint" / "explainer")
    reads = load_reads(read_table(args.data), ranks, args.split)
    plain = np.full((len(reads), len(ranks)), -1, np.int64)
    chunks = np.full((len(reads), len(ranks), 2), -1, np.int64)
    with torch.inference_mode():
        for rows in evaluation_batches(reads, WINDOW_BP):
            batch = evaluation_batch(reads, rows, WINDOW_BP)
            found = explain(explanandum, explainer, batch)
            plain[rows] = found.plain
            probs, counts = classify_chunks(explanandum, batch.input_ids, found.mask(), found.valid)
            for r, classes in enumerate(explanandum.slices):
                chunks[rows, r] = torch.where(counts > 0, probs[:, :, classes].argmax(dim=-1), -1)
    measured = {
        rank.name: {
            name: gap(measure, reads.labels[:, r], plain[:, r], chunks[:, r], args.seed)
            for name, measure in (("balanced_accuracy", accuracy), ("same_call", same_call))
        }
        for r, rank in enumerate(ranks)
    }
    kit.write_result(args.output, "chunk_gap", {"reads": len(reads), "draws": DRAWS, "ranks": measured})
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
