"""What is not computed: `run --no-masked-calls`, and reads that repeat others, on the CPU.

    pip install -c constraints.txt -e '.[train,cpu,openvino]'
    apt-get download r-bioc-dada2 && dpkg-deb -x r-bioc-dada2_*.deb dada2           # real amplicons, on Debian
    python -m benchmarks.speed.no_masked_calls --amplicons dada2/usr/lib/R/site-library/dada2/extdata/*.fastq.gz \\
        --folder published -o benchmarks/results/no_masked_calls.json

In alternation, disk to disk from the first read on (loading the model is left out), with ONNX Runtime and OpenVINO:
- the starter on the example's reads, and the published size (54 M parameters, random weights, exported into --folder
  unless it is there) on a few reads of 1,500 bp: the whole run and one without masked calls;
- the starter on amplicons: repeats computed once, and each read by itself.
`correct`: all columns but RANK_masked are equal, numbers within 1e-5.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import wyr_batch
from benchmarks import kit
from benchmarks.published_size import READ_BP, make_checkpoints
from benchmarks.tables import Json, correct, markdown, shown
from wyr_batch.bundle import Bundle, load_bundle
from wyr_batch.choose import EngineRequest, open_engine
from wyr_batch.engines.base import Engine
from wyr_batch.host import available_cpus
from wyr_batch.job.config import RunConfig

RUNTIMES = ("onnx", "openvino")
EXAMPLE = kit.ROOT / "examples" / "reads.fastq.gz"
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
MOST_OFF = 1e-5


def published(folder: Path, tiny: bool) -> Bundle:
    """Return the bundle of the published size in a folder, made and exported unless it is there."""
    if not (folder / "bundle").exists():
        from wyr_batch.models.encoder import EncoderConfig

        make_checkpoints(folder, EncoderConfig(**TINY) if tiny else None)
        words = ["export", "--explanandum", str(folder / "explanandum"), "--explainer", str(folder / "explainer")]
        subprocess.run([*kit.COMMAND, *words, "-o", str(folder / "bundle")], check=True)
    return load_bundle(folder / "bundle")


def same(full: Path, other: Path) -> bool:
    """Say whether two outputs are equal in the columns that both have, numbers within `MOST_OFF`."""
    a, b = pq.read_table(full), pq.read_table(other)
    return a.num_rows == b.num_rows and all(_same(a[name], b[name]) for name in b.column_names)


def _same(a: pa.ChunkedArray, b: pa.ChunkedArray) -> bool:
    if pa.types.is_list(a.type) and not pa.types.is_struct(a.type.value_type):
        if not pc.list_value_length(a).equals(pc.list_value_length(b)):
            return False
        a, b = pc.list_flatten(a), pc.list_flatten(b)
    if pa.types.is_floating(a.type):
        off = np.abs(a.to_numpy().astype(np.float64) - b.to_numpy())
        return bool(np.nan_to_num(off).max(initial=0) <= MOST_OFF)
    if pa.types.is_list(a.type):  # segments: their ends; their means are those of the masks
        flat = [pc.list_flatten(column) for column in (a, b)]
        return all(pc.struct_field(flat[0], i).equals(pc.struct_field(flat[1], i)) for i in range(2))
    return a.to_pylist() == b.to_pylist()


def measure(name: str, source: Path, bundle: Bundle, rounds: int, repeats_alone: bool = False) -> list[Json]:
    """Time both ways in every runtime.

    Args:
        repeats_alone: compare repeats computed once with each read by itself, instead of leaving out masked calls.
    """
    rows = []
    for runtime in RUNTIMES:
        if runtime == "openvino" and not bundle.is_proven(runtime, "float32"):
            print(f"{bundle.name}: {runtime} left out, for its proof failed")  # random weights are hard to agree on
            continue
        request = EngineRequest("cpu", runtime, "float32", available_cpus())
        engine = open_engine(bundle, request)
        with tempfile.TemporaryDirectory() as tmp:
            config = RunConfig((str(source),), Path(tmp) / "full.parquet", overwrite=True)
            less = replace(config, output=Path(tmp) / "less.parquet", no_masked_calls=not repeats_alone)
            cut = engine if repeats_alone else open_engine(bundle, replace(request, masked_calls=False))
            if cut.masked_calls != repeats_alone:
                raise SystemExit(f"{bundle.name}: {runtime} is not proven without masked calls")
            ways: dict[str, Callable[[], object]] = {
                "full": partial(_run, config, engine, repeats_alone),
                "less": partial(_run, less, cut, False),
            }
            timings = kit.alternated(ways, rounds)
            stats = wyr_batch.run(less, engines=[cut])
            n_reads = stats.n_reads
            rates = {way: kit.per_s(n_reads, timings[way]) for way in ways}
            rows.append(
                {
                    "what": name,
                    "runtime": runtime,
                    "correct": same(config.output, less.output),
                    "n_reads": n_reads,
                    "reads_repeated": stats.n_repeats,
                    "reads_per_s": {way: kit.spread(values) for way, values in rates.items()},
                    "ratio": kit.spread(kit.ratios(rates["less"], rates["full"])),
                }
            )
            engine.close()
            cut.close()
    return rows


def _run(config: RunConfig, engine: Engine, each_by_itself: bool) -> None:
    if each_by_itself:
        with kit.repeats_computed():
            wyr_batch.run(config, engines=[engine])
    else:
        wyr_batch.run(config, engines=[engine])


def main() -> None:
    parser = kit.options(__doc__)
    parser.add_argument("--amplicons", type=Path, nargs="*", default=[], help="FASTQ files of amplicons")
    parser.add_argument("--folder", type=Path, help="where the published size is, or is to be kept; left out without")
    parser.add_argument("--tiny", action="store_true", help="a small model in its place, to try the script")
    parser.add_argument("--reads", type=int, default=48, help="of 1,500 bp, for the published size")
    parser.add_argument("--repeats", type=int, default=5, help="rounds")
    args = parser.parse_args()
    rows = measure("starter, example", EXAMPLE, load_bundle(), args.repeats)
    for path in args.amplicons:
        rows += measure(f"starter, {path.name}", path, load_bundle(), args.repeats, repeats_alone=True)
    if args.folder:
        with tempfile.TemporaryDirectory() as tmp:
            source = Path(tmp) / "reads.fastq.gz"
            kit.write_reads(source, args.reads, READ_BP, READ_BP)
            name = "tiny" if args.tiny else "54 M parameters"
            rows += measure(f"{name}, {READ_BP:,} bp", source, published(args.folder, args.tiny), args.repeats)
    result = {"threads": available_cpus(), "rows": rows}
    kit.write_result(args.output, "no_masked_calls", result)
    print(table(result))


def table(data: Json) -> str:
    rows, note = correct(data["rows"])
    head = ["model and reads", "runtime", "left out", "reads/s, all", "reads/s", "times"]
    lines = [
        [
            row["what"],
            row["runtime"],
            f"{row['reads_repeated']:,} of {row['n_reads']:,} reads" if row["reads_repeated"] else "second pass",
            *(shown(row["reads_per_s"][way], ".1f") for way in ("full", "less")),
            shown(row["ratio"], ".2f"),
        ]
        for row in rows
    ]
    return f"{data['threads']} threads, float32, rounds in alternation.\n\n{markdown(head, lines)}{note}"


if __name__ == "__main__":
    main()
