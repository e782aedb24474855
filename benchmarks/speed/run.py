"""`run`, disk to disk, against the bare graph on ready batches and against plain eager torch with EsmTokenizer.

    python -m benchmarks.speed.run examples/reads.fastq.gz -o benchmarks/results/run.json

Three ways through the same model, in alternation, `--copies` times the given reads:
- run: FASTQ.gz to Parquet with the pipeline of this package (ONNX Runtime float32);
- graph: the same ONNX session fed with batches made beforehand, results thrown away: what `run` cannot beat;
- eager: read by read batches of 32 in file order, EsmTokenizer, the float32 torch model, masks collected in a list.
`correct` says that the masks of run and eager agree within 1e-4 on every read. `run` loads the bundle within its
time, the other two are loaded beforehand. Copies are computed like other reads here.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

import wyr_batch
from benchmarks import kit
from benchmarks.speed.ways import eager, esm_tokenizer, graph_alone, texts_in
from benchmarks.tables import Json, markdown, shown
from wyr_batch.bundle import load_bundle
from wyr_batch.choose import EngineRequest, open_engine
from wyr_batch.host import available_cpus
from wyr_batch.job.config import RunConfig

EAGER_ROWS = 32


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("reads", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--copies", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with kit.repeats_computed():
        measure(args)


def measure(args: argparse.Namespace) -> None:
    tokenizer, threads, bundle = esm_tokenizer(), available_cpus(), load_bundle(args.model)
    with tempfile.TemporaryDirectory() as tmp:
        source, output = Path(tmp) / "reads.fastq.gz", Path(tmp) / "masks.parquet"
        source.write_bytes(args.reads.read_bytes() * args.copies)  # gzip members follow one another
        config = RunConfig(inputs=(str(source),), output=output, model=args.model, overwrite=True)
        texts = texts_in(source)
        eager_texts = texts[: len(texts) // args.copies]
        onnx = open_engine(bundle, EngineRequest("cpu", "onnx", "auto", threads))
        torch = open_engine(bundle, EngineRequest("cpu", "torch", "auto", threads))
        graph = graph_alone(source, bundle)
        ways = {
            "run": lambda: wyr_batch.run(config),
            "graph": lambda: graph(onnx),
            "eager": lambda: eager(eager_texts, tokenizer, torch, EAGER_ROWS),
        }
        timings = kit.alternated(ways, args.repeats)
        masks, _ = eager(eager_texts, tokenizer, torch, EAGER_ROWS)
        found = pq.read_table(output, columns=["mask"])["mask"].slice(0, len(masks)).to_pylist()
        off = max(float(np.abs(np.array(a) - b).max()) for a, b in zip(found, masks, strict=True))
    counts = {"run": len(texts), "graph": len(texts), "eager": len(eager_texts)}
    rates = {name: kit.per_s(counts[name], timings[name]) for name in ways}
    lengths = np.array([len(text) for text in texts])
    result = {
        "model": bundle.name,
        "model_sha256": bundle.sha256,
        "threads": threads,
        "n_reads": len(texts),
        "read_bp": {"mean": float(lengths.mean()), "min": int(lengths.min()), "max": int(lengths.max())},
        "correct": off < 1e-4,
        "mask_max_abs_diff": off,
        "rows": {name: {"reads_per_s": kit.spread(values)} for name, values in rates.items()},
        "run_over_graph": statistics.median(kit.ratios(rates["run"], rates["graph"])),
        "run_over_eager": statistics.median(kit.ratios(rates["run"], rates["eager"])),
    }
    kit.write_result(args.output, "run", result)
    print(table(result))


def table(data: Json) -> str:
    lines = [[name, shown(row["reads_per_s"])] for name, row in data["rows"].items()]
    reads = f"{data['n_reads']:,} reads of {data['read_bp']['mean']:.0f} bp"
    about = f"{reads}, model {data['model']}, {data['threads']} threads."
    about += " `run`: FASTQ.gz to Parquet. `graph`: the same session on ready batches."
    about += " `eager`: EsmTokenizer, float32 torch."
    over = (
        f"run / graph {data['run_over_graph']:.2f}, run / eager {data['run_over_eager']:.2f} (medians of the ratios)."
    )
    return f"{about}\n\n{markdown(['way', 'reads/s'], lines)}\n\n{over}"


if __name__ == "__main__":
    main()
