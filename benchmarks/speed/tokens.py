"""Tokeniser: this project's against transformers' EsmTokenizer, same reads, same process, one core, in alternation.

    python -m benchmarks.speed.tokens -o benchmarks/results/tokens.json

Reads are seeded random ones of 1,500 bp, with and without a few N; EsmTokenizer gets every twentieth part of them.
Ids are compared before anything is timed.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from benchmarks import kit
from benchmarks.speed.ways import esm_tokenizer
from benchmarks.tables import Json, correct, markdown, shown
from wyr_batch.tokens.kmers import CLS_ID, tokenise

READ_BP = 1500
SLOW_PART = 20


def make_reads(n: int, n_share: float) -> tuple[kit.Bases, kit.Ints]:
    """Return the bases of n random reads, a share of them N, and their offsets, int64 [n + 1]."""
    random = np.random.default_rng(0)
    bases = kit.random_bases(random, n * READ_BP)
    bases[random.random(len(bases)) < n_share] = ord("N")
    return bases, np.arange(n + 1) * READ_BP


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("--reads", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    reference, n_slow = esm_tokenizer(), args.reads // SLOW_PART
    rows = []
    for name, n_share in (("clean", 0.0), ("0.1 % N", 0.001)):
        bases, offsets = make_reads(args.reads, n_share)
        texts = [bases[offsets[i] : offsets[i + 1]].tobytes().decode() for i in range(n_slow)]
        tokens = tokenise(bases, offsets)
        found = [tokens.ids[tokens.offsets[i] : tokens.offsets[i + 1]].tolist() for i in range(n_slow)]
        expected = reference(texts, add_special_tokens=False)["input_ids"]
        ways = {
            "wyr_batch": partial(tokenise, bases, offsets),
            "esm_tokenizer": partial(reference, texts),
        }
        timings = kit.alternated(ways, args.repeats)
        ours, theirs = (kit.per_s(n, timings[way]) for way, n in (("wyr_batch", args.reads), ("esm_tokenizer", n_slow)))
        rows.append(
            {
                "workload": f"{READ_BP} bp, {name}",
                "correct": found == [ids[1:] if ids and ids[0] == CLS_ID else ids for ids in expected],
                "wyr_batch_reads_per_s": kit.spread(ours),
                "esm_tokenizer_reads_per_s": kit.spread(theirs),
                "ratio": kit.spread(kit.ratios(ours, theirs)),
            }
        )
    kit.write_result(args.output, "tokens", {"rows": rows})
    print(table({"rows": rows}))


def table(data: Json) -> str:
    rows, note = correct(data["rows"])
    lines = []
    for row in rows:
        rates = [shown(row[f"{way}_reads_per_s"]) for way in ("wyr_batch", "esm_tokenizer")]
        lines.append([row["workload"], *rates, shown(row["ratio"])])
    return markdown(["reads", "wyr-batch, reads/s", "EsmTokenizer, reads/s", "ratio"], lines) + note


if __name__ == "__main__":
    main()
