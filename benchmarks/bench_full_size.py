"""The published size (54 M parameters, 4 + 55 + 1,878 classes, random weights) on 1,500 bp reads, on the CPU.

    pip install -c constraints.txt -e '.[train,openvino]'
    python benchmarks/bench_full_size.py [--bfloat16] -o benchmarks/results/full_size.json

Makes the checkpoints (seeded), exports them in a process of its own (its time and peak memory are recorded), and then
times, in alternation, disk to disk or as plain code does it:
- run_onnx_float32, run_openvino_float32, run_openvino_bfloat16: `wyr_batch.run`, FASTQ.gz to Parquet, from the first
  read to the finished file (loading the model, seconds whatever the number of reads, is left out everywhere);
- eager: EsmTokenizer, batches of 16 in file order, the float32 torch model, masks collected in a list;
- graph_*: the same engines fed with batches made beforehand, results thrown away.
`correct` compares each way's calls and masks with eager's on the eager reads.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from bench_run import timed
from common import environment, esm_tokenizer
from full_size import CLASSES, READ_BP, make_checkpoints, write_reads

import wyr_batch
from wyr_batch.bundle import Bundle, load_bundle
from wyr_batch.choose import EngineRequest, open_engine
from wyr_batch.engines.base import CPU_BATCH_TOKENS, Engine
from wyr_batch.host import available_cpus
from wyr_batch.job.config import RunConfig
from wyr_batch.reads.open import open_reads
from wyr_batch.tokens.batches import pad_batch
from wyr_batch.tokens.plan import Planner

EAGER_ROWS = 16
WAYS = (("onnx", "float32"), ("openvino", "float32"), ("openvino", "bfloat16"))
EXPORT = "import sys; from wyr_batch.cli import main; sys.exit(main(sys.argv[1:]))"


def export(folder: Path, dtypes: list[str]) -> dict[str, Any]:
    """Export in a process of its own; return its time in s, peak memory in MB and the size of the graph in MB."""
    words = ["export", "--explanandum", str(folder / "explanandum"), "--explainer", str(folder / "explainer")]
    write_reads(folder / "verify.fastq.gz", 4)
    words += ["-o", str(folder / "bundle"), "--verify", str(folder / "verify.fastq.gz"), "--overwrite"]
    words += [word for dtype in dtypes for word in ("--dtype", dtype)]
    seconds = timed(lambda: subprocess.run([sys.executable, "-c", EXPORT, *words], check=True))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    size = (folder / "bundle" / "model.onnx").stat().st_size / 1e6
    return {"seconds": round(seconds, 1), "peak_mb": round(peak), "model_onnx_mb": round(size, 1)}


def eager(texts: list[str], tokenizer: Any, engine: Engine) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the masks and the called classes [n, R]."""
    masks, calls = [], []
    n_ranks = len(engine.bundle.ranks)
    for at in range(0, len(texts), EAGER_ROWS):
        ids = tokenizer(texts[at : at + EAGER_ROWS], padding=True, return_tensors="np")["input_ids"].astype(np.int32)
        out = engine.infer(ids, np.full((len(ids), n_ranks), -1, np.int32))
        masks += [mask[1 : int((row != 1).sum())].copy() for row, mask in zip(ids, out.mask, strict=True)]
        calls.append(out.explained_ids.copy())
    return masks, np.concatenate(calls)


def compared(path: Path, bundle: Bundle, masks: list[np.ndarray], calls: np.ndarray, dtype: str) -> dict[str, Any]:
    table = pq.read_table(path).slice(0, len(masks))
    found = table["mask"].to_pylist()
    differences = [np.abs(np.array(a) - b) for a, b in zip(found, masks, strict=True)]
    labels = [
        float(
            np.mean([rank.labels[c] == row for c, row in zip(calls[:, r], table[rank.name].to_pylist(), strict=True)])
        )
        for r, rank in enumerate(bundle.ranks)
    ]
    most, mean = max(float(d.max()) for d in differences), float(np.concatenate(differences).mean())
    correct = min(labels) == 1 and most < 1e-5 if dtype == "float32" else min(labels) >= 0.995 and mean <= 0.01
    return {"correct": correct, "label_agreement": labels, "mask_max_abs_diff": most, "mask_mean_abs_diff": mean}


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=int, default=128)
    parser.add_argument("--eager-reads", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bfloat16", action="store_true", help="prove and time it too; slow where the CPU has none")
    parser.add_argument("--folder", type=Path, help="where to keep the bundle; one that is there is used")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    tokenizer, threads = esm_tokenizer(), available_cpus()
    with tempfile.TemporaryDirectory() as tmp:
        folder, source, output = args.folder or Path(tmp), Path(tmp) / "reads.fastq.gz", Path(tmp) / "masks.parquet"
        exported: dict[str, Any] | None = None
        if not (folder / "bundle").exists():
            make_checkpoints(folder)
            exported = export(folder, ["bfloat16"] if args.bfloat16 else [])
        bundle = load_bundle(folder / "bundle")
        texts = write_reads(source, args.reads)
        torch_engine = open_engine(bundle, EngineRequest("cpu", "torch", "float32", threads))
        masks, calls = eager(texts[: args.eager_reads], tokenizer, torch_engine)

        def run(runtime: str, dtype: str) -> float:
            config = RunConfig(
                inputs=(str(source),),
                output=output,
                model=bundle.folder,
                runtime=runtime,
                dtype=dtype,
                overwrite=True,
            )
            return wyr_batch.run(config).wall_s

        config = RunConfig(inputs=(str(source),), output=output, model=bundle.folder)
        with open_reads(source) as reads:
            planner = Planner(*config.window_tokens(bundle), CPU_BATCH_TOKENS)
            works = [planner.plan(chunk) for chunk in reads]
        batches = [pad_batch(w.tokens.ids, w.windows, rows) for w in works for rows in w.batches]

        def graph(engine: Engine) -> None:
            for ids in batches:
                engine.infer(ids, np.full((len(ids), len(CLASSES)), -1, np.int32))

        checks: dict[str, Any] = {}
        ways: list[tuple[str, int, Callable[[], float]]] = []
        for runtime, dtype in WAYS:
            if runtime != "onnx" and not bundle.is_proven(runtime, dtype):
                checks[f"run_{runtime}_{dtype}"] = {"correct": False, "why": "no passing parity record: not run"}
                continue
            name = f"{runtime}_{dtype}"
            run(runtime, dtype)
            checks[f"run_{name}"] = compared(output, bundle, masks, calls, dtype)
            engine = open_engine(bundle, EngineRequest("cpu", runtime, dtype, threads))
            ways.append((f"run_{name}", args.reads, lambda r=runtime, d=dtype: run(r, d)))
            ways.append((f"graph_{name}", args.reads, lambda e=engine: timed(lambda: graph(e))))
        n = args.eager_reads
        ways.append(("eager", n, lambda: timed(lambda: eager(texts[:n], tokenizer, torch_engine))))
        rates: dict[str, list[float]] = {name: [] for name, _, _ in ways}
        for repeat in range(args.repeats):
            for name, n_reads, way in ways if repeat % 2 else ways[::-1]:
                rates[name].append(n_reads / way())
                print(repeat, name, rates[name][-1], flush=True)
    over_eager = {
        name: spread([a / b for a, b in zip(values, rates["eager"], strict=True)])
        for name, values in rates.items()
        if name != "eager"
    }
    over_graph = {
        name: spread([a / b for a, b in zip(values, rates[name.replace("run", "graph")], strict=True)])
        for name, values in rates.items()
        if name.startswith("run")
    }
    result = {
        "benchmark": "full_size",
        **environment(),
        "threads": threads,
        "read_bp": READ_BP,
        "n_reads": args.reads,
        "n_eager_reads": args.eager_reads,
        "export": exported,
        "checks": checks,
        "reads_per_s": {name: spread(values) for name, values in rates.items()},
        "times_eager": over_eager,
        "run_over_graph": over_graph,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(result, indent=2) + "\n")
    print(args.output.read_text())


if __name__ == "__main__":
    main()
