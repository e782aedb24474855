"""The published size (54 M parameters, 4 + 55 + 1,878 classes, random weights) on 1,500 bp reads, on the CPU.

    pip install -c constraints.txt -e '.[train,openvino]'
    python -m benchmarks.speed.full_size [--bfloat16] -o benchmarks/results/full_size.json

Makes the checkpoints (seeded), exports them in a process of its own (its time and peak memory are recorded), and then
times, in alternation, disk to disk or as plain code does it:
- run_onnx_float32, run_openvino_float32, run_openvino_bfloat16: `wyr_batch.run`, FASTQ.gz to Parquet, from the first
  read to the finished file (loading the model, seconds whatever the number of reads, is left out everywhere);
- eager: EsmTokenizer, batches of 16 in file order, the float32 torch model, masks collected in a list;
- graph_*: the same engines fed with batches made beforehand, results thrown away.
`correct` compares each way's calls and masks with eager's on the eager reads.
"""

from __future__ import annotations

import resource
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import wyr_batch
from benchmarks import kit
from benchmarks.published_size import READ_BP, make_checkpoints
from benchmarks.speed.ways import Mask, eager, esm_tokenizer, graph_alone, texts_in
from benchmarks.tables import Json, markdown, shown
from wyr_batch.bundle import Bundle, load_bundle
from wyr_batch.choose import EngineRequest, open_engine
from wyr_batch.engines.base import Engine
from wyr_batch.engines.signature import Int32s
from wyr_batch.host import available_cpus
from wyr_batch.job.config import RunConfig

EAGER_ROWS = 16
WAYS = (("onnx", "float32"), ("openvino", "float32"), ("openvino", "bfloat16"))


def export(folder: Path, dtypes: list[str]) -> Json:
    """Export in a process of its own; return its time in s, peak memory in MB and the size of the graph in MB."""
    words = ["export", "--explanandum", str(folder / "explanandum"), "--explainer", str(folder / "explainer")]
    kit.write_reads(folder / "verify.fastq.gz", 4, READ_BP, READ_BP)
    words += ["-o", str(folder / "bundle"), "--verify", str(folder / "verify.fastq.gz"), "--overwrite"]
    words += [word for dtype in dtypes for word in ("--dtype", dtype)]
    seconds = kit.timed(lambda: subprocess.run([*kit.COMMAND, *words], check=True)).wall_s
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    size = (folder / "bundle" / "model.onnx").stat().st_size / 1e6
    return {"seconds": round(seconds, 1), "peak_mb": round(peak), "model_onnx_mb": round(size, 1)}


def compared(path: Path, bundle: Bundle, masks: list[Mask], calls: Int32s, dtype: str) -> Json:
    """Compare the first rows of an output with the masks and calls (int32 [n, R]) of eager."""
    rows = pq.read_table(path).slice(0, len(masks))
    differences = [np.abs(np.array(a) - b) for a, b in zip(rows["mask"].to_pylist(), masks, strict=True)]
    labels = []
    for r, rank in enumerate(bundle.ranks):
        called = [rank.labels[c] for c in calls[:, r]]
        labels.append(float(np.mean(np.array(called) == np.array(rows[rank.name].to_pylist()))))
    most, mean = max(float(d.max()) for d in differences), float(np.concatenate(differences).mean())
    correct = min(labels) == 1 and most < 1e-5 if dtype == "float32" else min(labels) >= 0.995 and mean <= 0.01
    return {"correct": correct, "label_agreement": labels, "mask_max_abs_diff": most, "mask_mean_abs_diff": mean}


def measure(bundle: Bundle, n_reads: int, n_eager: int, repeats: int) -> Json:
    """Compare and time every way on n_reads reads, eager on the first n_eager of them."""
    tokenizer, threads = esm_tokenizer(), available_cpus()
    torch = open_engine(bundle, EngineRequest("cpu", "torch", "float32", threads))
    checks: dict[str, Any] = {}
    ways: dict[str, Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as tmp:
        source, output = Path(tmp) / "reads.fastq.gz", Path(tmp) / "masks.parquet"
        kit.write_reads(source, n_reads, READ_BP, READ_BP)
        config = RunConfig((str(source),), output, overwrite=True)
        texts = texts_in(source)[:n_eager]
        graph = graph_alone(source, bundle)
        masks, calls = eager(texts, tokenizer, torch, EAGER_ROWS)

        def run(engine: Engine) -> None:
            wyr_batch.run(config, engines=[engine])

        for runtime, dtype in WAYS:
            name = f"{runtime}_{dtype}"
            if runtime != "onnx" and not bundle.is_proven(runtime, dtype):
                checks[f"run_{name}"] = {"correct": False, "why": "no passing parity record: not run"}
                continue
            engine = open_engine(bundle, EngineRequest("cpu", runtime, dtype, threads))
            run(engine)
            checks[f"run_{name}"] = compared(output, bundle, masks, calls, dtype)
            ways[f"run_{name}"] = partial(run, engine)
            ways[f"graph_{name}"] = partial(graph, engine)
        ways["eager"] = lambda: eager(texts, tokenizer, torch, EAGER_ROWS)
        timings = kit.alternated(ways, repeats, warm_up=False)
    rates = {name: kit.per_s(n_eager if name == "eager" else n_reads, values) for name, values in timings.items()}
    over_eager = {name: kit.ratios(values, rates["eager"]) for name, values in rates.items() if name != "eager"}
    over_graph = {
        name: kit.ratios(values, rates[name.replace("run", "graph")])
        for name, values in rates.items()
        if name.startswith("run")
    }
    return {
        "threads": threads,
        "read_bp": READ_BP,
        "n_reads": n_reads,
        "n_eager_reads": n_eager,
        "checks": checks,
        "reads_per_s": {name: kit.spread(values) for name, values in rates.items()},
        "times_eager": {name: kit.spread(values) for name, values in over_eager.items()},
        "run_over_graph": {name: kit.spread(values) for name, values in over_graph.items()},
    }


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("--reads", type=int, default=128)
    parser.add_argument("--eager-reads", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bfloat16", action="store_true", help="prove and time it too; slow where the CPU has none")
    parser.add_argument("--folder", type=Path, help="where to keep the bundle; one that is there is used")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        folder, exported = args.folder or Path(tmp), None
        if not (folder / "bundle").exists():
            make_checkpoints(folder)
            exported = export(folder, ["bfloat16"] if args.bfloat16 else [])
        measured = measure(load_bundle(folder / "bundle"), args.reads, args.eager_reads, args.repeats)
    kit.write_result(args.output, "full_size", {"export": exported, **measured})
    print(table(measured))


def table(data: Json) -> str:
    lines = []
    for name, rate in data["reads_per_s"].items():
        over = [data[of].get(name) for of in ("times_eager", "run_over_graph")]
        lines.append([name.replace("_", " "), shown(rate, ".2f"), *(shown(o, ".2f") if o else "" for o in over)])
    checks = [
        f"{name.replace('_', ' ')}: {check.get('why', 'not correct')}"
        for name, check in data["checks"].items()
        if not check["correct"]
    ]
    about = (
        f"54 M parameters, 4 + 55 + 1,878 classes, random weights; {data['n_reads']} reads of {data['read_bp']:,} bp, "
        f"{data['threads']} threads, rounds in alternation."
    )
    left = f"\n\nNot shown: {'; '.join(checks)}." if checks else ""
    return f"{about}\n\n{markdown(['way', 'reads/s', 'times eager', 'run / graph'], lines)}{left}"


if __name__ == "__main__":
    main()
