"""What the benchmarks share: their options, where they ran, timing, results, simulated reads and random batches."""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wyr_batch.engines.signature import Int32s
from wyr_batch.tokens.kmers import CLS_ID, FIRST_BASE_ID, FIRST_KMER_ID

if TYPE_CHECKING:
    from wyr_batch.models.fused import Fused

ROOT = Path(__file__).resolve().parents[1]
COMMAND = (sys.executable, "-m", "wyr_batch")
PACKAGES = (
    *("numpy", "pyarrow", "pysam", "onnxruntime", "onnxruntime-gpu", "tensorrt", "openvino", "torch", "onnx"),
    *("onnxscript", "transformers", "captum", "biopython", "zlib-ng", "dnaio", "xopen", "isal"),
)
BLOCK_READS = 4096  # simulated at a time

Bases = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


# Options and results


def script_name() -> str:
    """Return the command that runs this script, without its options, such as `python -m benchmarks.speed.host`."""
    spec = sys.modules["__main__"].__spec__
    name = spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0]).name
    return f"python -m {name}" if spec else f"python {name}"


def options(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the option that every benchmark has, -o; `doc` is the script's docstring."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(script_name(), description=doc, formatter_class=raw)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the JSON file to write")
    return parser


def environment() -> dict[str, Any]:
    """Return the command, the commit, the machine and the versions of what is measured."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "command": f"{script_name()} {shlex.join(words)}".strip(),
        "commit": commit or "unknown",
        "uncommitted_changes": None if changes is None else bool(changes),
        "cpu": _cpu_model(),
        "cpus_available": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def write_result(path: Path, name: str, result: Mapping[str, Any]) -> None:
    """Write a benchmark's JSON: its name, the environment, then `result`. Makes the folder."""
    write_json(path, {"benchmark": name, **environment(), **result})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*words: str) -> str | None:
    """Return what git says of this checkout, None if there is no git or no repository."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


# Timing


class Timing(NamedTuple):
    """How long one call took.

    Attributes:
        wall_s: seconds on the clock.
        cpu_s: seconds of CPU time of this process, all threads together.
    """

    wall_s: float
    cpu_s: float


def timed(function: Callable[[], object]) -> Timing:
    """Call a function once and return how long it took."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    function()
    return Timing(time.perf_counter() - start_s, time.process_time() - start_cpu_s)


def alternated(
    ways: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: bool = True
) -> dict[str, list[Timing]]:
    """Time several ways in alternation: each once a round, in reversed order every other round.

    Args:
        ways: what to call, by name.
        rounds: that are counted.
        warm_up: call each way once before, uncounted.
    Returns: by way, a Timing a round.
    """
    if warm_up:
        for way in ways.values():
            way()
    timings: dict[str, list[Timing]] = {name: [] for name in ways}
    for round_number in range(rounds):
        for name in list(ways)[:: -1 if round_number % 2 else 1]:
            timings[name].append(timed(ways[name]))
    return timings


def repeated(function: Callable[[], object], rounds: int, *, warm_up: bool = True) -> list[Timing]:
    """Time one function; arguments as of `alternated`. Returns: a Timing a round."""
    return alternated({"": function}, rounds, warm_up=warm_up)[""]


def per_s(n: float, timings: Sequence[Timing]) -> list[float]:
    """Return how many of `n` things are done in a second, of each round."""
    return [n / timing.wall_s for timing in timings]


def ratios(rates: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return one rate over the other, round by round."""
    return [rate / other for rate, other in zip(rates, others, strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


@contextmanager
def repeats_computed() -> Iterator[None]:
    """Compute every read by itself within the `with`, also those that repeat others."""
    from wyr_batch.tokens import plan

    found = plan.find_repeats
    plan.find_repeats = lambda tokens, runnable: found(tokens, np.zeros_like(runnable))
    try:
        yield
    finally:
        plan.find_repeats = found


# Simulated reads


def random_bases(random: np.random.Generator, n: int) -> Bases:
    """Return n random letters of ACGT, uint8."""
    bases: Bases = np.frombuffer(b"ACGT", np.uint8)[random.integers(0, 4, n, np.uint8)]
    return bases


def simulated_fastq(lengths: Ints, seed: int = 1) -> Iterator[bytes]:
    """Yield FASTQ of random bases with a quality line of one letter, some thousand reads at a time.

    Args:
        lengths: bases of each read, int64 [n].
    """
    random = np.random.default_rng(seed)
    for start in range(0, len(lengths), BLOCK_READS):
        block = lengths[start : start + BLOCK_READS]
        letters, ends = random_bases(random, int(block.sum())).tobytes(), np.cumsum(block).tolist()
        rows = zip(range(start, start + len(block)), [0, *ends[:-1]], ends, strict=True)
        yield b"".join(b"@run1.%d 1:N:0\n%s\n+\n%s\n" % (i, letters[a:b], b"I" * (b - a)) for i, a, b in rows)


def write_reads(path: Path, n_reads: int, least_bp: int, most_bp: int, seed: int = 1) -> int:
    """Write simulated reads of log-uniform lengths, packed with gzip if the path ends in .gz.

    Returns: their bases.
    """
    random = np.random.default_rng(seed)
    lengths = np.exp(random.uniform(np.log(least_bp), np.log(most_bp), n_reads)).round().astype(np.int64)
    with gzip.open(path, "wb", compresslevel=6) if path.suffix == ".gz" else path.open("wb") as file:
        file.writelines(simulated_fastq(lengths, seed))
    return int(lengths.sum())


def is_correct(output: Path, n_reads: int, n_bases: int) -> bool:
    """Say whether a run's rows are those of simulated reads, in order, with one mask value a token."""
    table = pq.read_table(output, columns=["read_id", "length", "n_tokens", "mask"])
    if table.num_rows != n_reads or pc.sum(table["length"]).as_py() != n_bases:
        return False
    in_order = table["read_id"][0].as_py() == "run1.0" and table["read_id"][-1].as_py() == f"run1.{n_reads - 1}"
    same_tokens = pc.all(pc.equal(pc.list_value_length(table["mask"]), table["n_tokens"])).as_py()
    return bool(in_order and same_tokens)


# Models


def random_batch(n_rows: int, n_tokens: int, n_ranks: int) -> tuple[Int32s, Int32s]:
    """Return a seeded batch of random 6-mers, the called classes to be explained.

    Returns: input_ids int32 [n_rows, n_tokens], explain_ids int32 [n_rows, n_ranks].
    """
    input_ids = np.random.default_rng(0).integers(FIRST_KMER_ID, FIRST_BASE_ID, (n_rows, n_tokens)).astype(np.int32)
    input_ids[:, 0] = CLS_ID
    return input_ids, np.full((n_rows, n_ranks), -1, np.int32)


def load_reference(checkpoint: Path) -> Fused:
    """Return the float32 torch model of a folder with explanandum/ and explainer/."""
    from wyr_batch.models.checkpoints import load_explainer, load_explanandum
    from wyr_batch.models.fused import Fused

    explanandum, _ = load_explanandum(checkpoint / "explanandum")
    return Fused(explanandum, load_explainer(checkpoint / "explainer")).eval()
