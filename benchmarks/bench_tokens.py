"""Tokeniser: this project's against transformers' EsmTokenizer, same reads, same process, one core, in alternation.

    python benchmarks/bench_tokens.py -o benchmarks/results/tokens.json

Reads are seeded random ones of 1,500 bp, with and without a few N. Every
repeat times both on the same reads; ids are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
from common import environment, esm_tokenizer

from wyr_batch.tokens.kmers import CLS_ID, tokenise

READ_BP = 1500


def make_reads(n: int, with_n: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    bases = np.frombuffer(b"ACGT", np.uint8)[rng.integers(0, 4, n * READ_BP)]
    bases[rng.random(len(bases)) < with_n] = ord("N")
    return bases, np.arange(n + 1) * READ_BP


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--reads", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    reference = esm_tokenizer()
    rows = []
    for name, with_n in (("clean", 0.0), ("0.1 % N", 0.001)):
        bases, offsets = make_reads(args.reads, with_n)
        n_slow = args.reads // 20
        texts = [bases[offsets[i] : offsets[i + 1]].tobytes().decode() for i in range(n_slow)]
        tokens = tokenise(bases, offsets)
        expected = reference(texts, add_special_tokens=False)["input_ids"]
        found = [tokens.ids[tokens.offsets[i] : tokens.offsets[i + 1]].tolist() for i in range(n_slow)]
        strip = [ids[1:] if ids and ids[0] == CLS_ID else ids for ids in expected]
        correct = found == strip
        ours, theirs = [], []
        for _ in range(args.repeats):
            start = time.perf_counter()
            tokenise(bases, offsets)
            ours.append(args.reads / (time.perf_counter() - start))
            start = time.perf_counter()
            reference(texts)
            theirs.append(n_slow / (time.perf_counter() - start))
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        rows.append(
            {
                "workload": f"{READ_BP} bp, {name}",
                "correct": correct,
                "wyr_batch_reads_per_s": {"median": statistics.median(ours), "min": min(ours), "max": max(ours)},
                "esm_tokenizer_reads_per_s": {
                    "median": statistics.median(theirs),
                    "min": min(theirs),
                    "max": max(theirs),
                },
                "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
            }
        )
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps({"benchmark": "tokens", **environment(), "rows": rows}, indent=2) + "\n")
    print(args.output.read_text())


if __name__ == "__main__":
    main()
