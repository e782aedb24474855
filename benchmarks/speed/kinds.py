"""The two kinds of Explainer against each other: the same classifier, in one run, in alternation.

    python -m benchmarks.speed.kinds wyr_batch/starter LSTM_BUNDLE -o benchmarks/results/kinds.json

LSTM_BUNDLE holds the starter's classifier with an LSTM Explainer (`wyr-batch export`). `run` explains the example and
simulated reads of 1,500 bp from FASTQ.gz to Parquet; the bare graph of the published size (54 M parameters, random
weights) computes one batch of 4 x 251 tokens. All with ONNX Runtime in float32. `correct`: both runs have one row for
every read; the graphs give numbers everywhere.
"""

from __future__ import annotations

import statistics
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks import kit
from benchmarks.published_size import CLASSES, make_checkpoints
from benchmarks.tables import Json, correct, markdown, shown
from wyr_batch import RunConfig, run
from wyr_batch.bundle import load_bundle
from wyr_batch.choose import EngineRequest, open_engine
from wyr_batch.host import available_cpus

ROUNDS, READS, READ_BP = 5, 600, 1500
GRAPH_ROWS, GRAPH_TOKENS = 4, 251
EXAMPLE = kit.ROOT / "examples" / "reads.fastq.gz"
KINDS = ("readout", "lstm")


def measure_run(bundles: dict[str, Path], reads: Path, workload: str) -> Json:
    """Return reads/s of `run` with each bundle, engines opened before."""
    engines = {
        kind: open_engine(load_bundle(path), EngineRequest("cpu", "onnx", "float32", available_cpus()))
        for kind, path in bundles.items()
    }
    with tempfile.TemporaryDirectory() as tmp:
        outputs = {kind: Path(tmp) / f"{kind}.parquet" for kind in bundles}

        def explain(kind: str) -> None:
            config = RunConfig((str(reads),), outputs[kind], model=str(bundles[kind]), overwrite=True)
            run(config, engines=[engines[kind]], progress=False)

        timings = kit.alternated({kind: partial(explain, kind) for kind in bundles}, ROUNDS)
        n_rows = {kind: pq.read_metadata(path).num_rows for kind, path in outputs.items()}
    for engine in engines.values():
        engine.close()
    n_reads = n_rows["lstm"]
    return _row(
        workload,
        n_reads,
        {kind: kit.per_s(n_reads, found) for kind, found in timings.items()},
        len(set(n_rows.values())) == 1,
    )


def measure_graphs() -> Json:
    """Return rows/s of the published size's graph with each kind."""
    import torch
    from wyr_batch.export.graph import graph_module
    from wyr_batch.export.onnx_file import onnx_from_torch, runner_from_onnx
    from wyr_batch.train.fit.explainer import new_explainer

    from wyr_batch.models.checkpoints import load_explanandum

    torch.manual_seed(0)
    ids, asked = kit.random_batch(GRAPH_ROWS, GRAPH_TOKENS, len(CLASSES))
    with tempfile.TemporaryDirectory() as tmp:
        make_checkpoints(Path(tmp))
        model, _ = load_explanandum(Path(tmp) / "explanandum")
        ways = {}
        for kind in KINDS:
            path = Path(tmp) / f"{kind}.onnx"
            onnx_from_torch(graph_module(model, new_explainer(model, kind).eval(), 512), path)
            ways[kind] = partial(runner_from_onnx(path, available_cpus()), ids, asked)
        found = {kind: way() for kind, way in ways.items()}
        timings = kit.alternated(ways, ROUNDS, warm_up=False)
    finite = all(np.isfinite(value).all() for outputs in found.values() for value in outputs.values())
    rates = {kind: kit.per_s(GRAPH_ROWS, each) for kind, each in timings.items()}
    return _row("bare graph, 54 M parameters, 1,500 bp", GRAPH_ROWS, rates, finite)


def _row(workload: str, n_reads: int, rates: dict[str, list[float]], is_right: bool) -> Json:
    ratio = statistics.median(kit.ratios(rates["readout"], rates["lstm"]))
    spreads = {kind: kit.spread(values) for kind, values in rates.items()}
    return {
        "workload": workload,
        "n_reads": n_reads,
        "reads_per_s": spreads,
        "readout_over_lstm": ratio,
        "correct": is_right,
    }


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("readout", type=Path, help="bundle")
    parser.add_argument("lstm", type=Path, help="bundle")
    args = parser.parse_args()
    bundles = {"readout": args.readout, "lstm": args.lstm}
    with tempfile.TemporaryDirectory() as tmp:
        long = Path(tmp) / "long.fastq.gz"
        kit.write_reads(long, READS, READ_BP, READ_BP)
        rows = [
            measure_run(bundles, EXAMPLE, "run, the example's 1,000 reads of 250 bp"),
            measure_run(bundles, long, f"run, {READS} reads of 1,500 bp"),
        ]
    kit.write_result(args.output, "kinds", {"rows": [*rows, measure_graphs()]})


def table(data: Json) -> str:
    rows, note = correct(data["rows"])
    lines = [
        [
            row["workload"],
            *(shown(row["reads_per_s"][kind], ",.1f") for kind in KINDS),
            f"{row['readout_over_lstm']:.2f}",
        ]
        for row in rows
    ]
    return markdown(["", "readout, reads/s", "lstm, reads/s", "readout / lstm"], lines) + note


if __name__ == "__main__":
    main()
