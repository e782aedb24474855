"""`run`, disk to disk, against the bare graph on ready batches and against plain eager torch with EsmTokenizer.

    python benchmarks/bench_run.py examples/reads.fastq.gz -o benchmarks/results/run.json

Three ways through the same model, in alternation, `--copies` times the given reads:
- run: FASTQ.gz to Parquet with the pipeline of this package (ONNX Runtime float32);
- graph: the same ONNX session fed with batches made beforehand, results thrown away: what `run` cannot beat;
- eager: read by read batches of 32 in file order, EsmTokenizer, the float32 torch model, masks collected in a list.
`correct` says that the masks of run and eager agree within 1e-4 on every read. `run` loads the bundle within its
time, the other two are loaded beforehand.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from common import environment, esm_tokenizer

import wyr_batch
from wyr_batch.bundle import load_bundle
from wyr_batch.choose import EngineRequest, open_engine
from wyr_batch.engines.base import CPU_BATCH_TOKENS
from wyr_batch.host import available_cpus
from wyr_batch.job.config import RunConfig
from wyr_batch.reads.open import open_reads
from wyr_batch.tokens.batches import pad_batch
from wyr_batch.tokens.plan import Planner

EAGER_ROWS = 32


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def eager_masks(texts: list[str], tokenizer: object, engine: object, n_ranks: int) -> list[np.ndarray]:
    """Explain reads the plain way: tokenise and pad batches of 32 in file order, run torch, keep the masks."""
    masks = []
    for at in range(0, len(texts), EAGER_ROWS):
        encoded = tokenizer(texts[at : at + EAGER_ROWS], padding=True, return_tensors="np")  # type: ignore[operator]
        ids = encoded["input_ids"].astype(np.int32)
        out = engine.infer(ids, np.full((len(ids), n_ranks), -1, np.int32))  # type: ignore[attr-defined]
        for row, mask in zip(ids, out.mask, strict=True):
            masks.append(mask[1 : int((row != 1).sum())])
    return masks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reads", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--copies", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    tokenizer = esm_tokenizer()
    threads = available_cpus()
    bundle = load_bundle(args.model)
    n_ranks = len(bundle.ranks)
    with tempfile.TemporaryDirectory() as tmp:
        source = Path(tmp) / "reads.fastq.gz"
        source.write_bytes(args.reads.read_bytes() * args.copies)  # gzip members follow one another
        output = Path(tmp) / "masks.parquet"
        config = RunConfig(inputs=(str(source),), output=output, model=args.model, overwrite=True)
        with open_reads(source) as reads:
            chunks = list(reads)
        planner = Planner(*config.window_tokens(bundle), CPU_BATCH_TOKENS)
        works = [planner.plan(chunk) for chunk in chunks]
        batches = [pad_batch(w.tokens.ids, w.windows, rows) for w in works for rows in w.batches]
        wanted = [np.full((len(ids), n_ranks), -1, np.int32) for ids in batches]
        texts = [
            chunk.bases[a:b].tobytes().decode()
            for chunk in chunks
            for a, b in zip(chunk.offsets[:-1], chunk.offsets[1:], strict=True)
        ]
        n_eager = len(texts) // args.copies
        onnx = open_engine(bundle, EngineRequest("cpu", "onnx", "auto", threads))
        torch_engine = open_engine(bundle, EngineRequest("cpu", "torch", "auto", threads))

        def graph() -> None:
            for ids, explain in zip(batches, wanted, strict=True):
                onnx.infer(ids, explain)

        def run() -> None:
            wyr_batch.run(config)

        masks = eager_masks(texts[:n_eager], tokenizer, torch_engine, n_ranks)
        graph()
        run()
        found = pq.read_table(output, columns=["mask"])["mask"].to_pylist()
        off = max(float(np.abs(np.array(a) - b).max()) for a, b in zip(found, masks, strict=False))
        seconds: dict[str, list[float]] = {"run": [], "graph": [], "eager": []}
        for repeat in range(args.repeats):
            ways = [("graph", graph), ("run", run)]
            for name, way in ways if repeat % 2 else ways[::-1]:
                seconds[name].append(timed(way))
            seconds["eager"].append(timed(lambda: eager_masks(texts[:n_eager], tokenizer, torch_engine, n_ranks)))
        rates = {
            name: [(n_eager if name == "eager" else len(texts)) / s for s in values] for name, values in seconds.items()
        }
    rows = {
        name: {"reads_per_s": {"median": statistics.median(v), "min": min(v), "max": max(v)}}
        for name, v in rates.items()
    }
    lengths = np.array([len(text) for text in texts])
    result = {
        "benchmark": "run",
        **environment(),
        "model": bundle.name,
        "model_sha256": bundle.sha256,
        "threads": threads,
        "n_reads": len(texts),
        "read_bp": {"mean": float(lengths.mean()), "min": int(lengths.min()), "max": int(lengths.max())},
        "correct": off < 1e-4,
        "mask_max_abs_diff": off,
        "rows": rows,
        "run_over_graph": statistics.median(a / b for a, b in zip(rates["run"], rates["graph"], strict=True)),
        "run_over_eager": statistics.median(a / b for a, b in zip(rates["run"], rates["eager"], strict=True)),
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=2) + "\n")
    print(args.output.read_text())


if __name__ == "__main__":
    main()
