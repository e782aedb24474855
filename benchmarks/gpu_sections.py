"""The parts of benchmarks/gpu.py: each a function of a `Kit` that returns what goes into the JSON, or raises."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from bench_run import timed

import wyr_batch
from wyr_batch import api
from wyr_batch.bundle import Bundle, BundleFile, bundle_json, load_bundle, sha256_of, starter_path
from wyr_batch.choose import GPU_RUNTIMES, EngineRequest, open_engines, usable_runtimes
from wyr_batch.engines.base import Engine
from wyr_batch.engines.cuda import chosen_gpus, cuda_device
from wyr_batch.host import available_cpus
from wyr_batch.job.config import RunConfig
from wyr_batch.proof.compare import N_READS
from wyr_batch.proof.first_use import prove

PAPER_READS, PAPER_READS_PER_S = 103_638, 86.0
WINDOW_TOKENS = 251  # of a 1,500 bp read, `<cls>` counted
CPU_WAYS = (("torch", "float32"), ("onnx", "float32"))


class Skipped(Exception):
    """A part that cannot be measured here; the message says what is missing."""


class FreshBundle(Bundle):
    """A bundle made a moment ago: the parity part proves its engines, so its graphs carry no record yet."""

    def verified(self, kind: str, dtype: str) -> Path:
        for entry in self.files:
            if (entry.kind, entry.dtype) == (kind, dtype):
                return self.verified_entry(entry)
        raise Skipped(f"no {kind} {dtype}: it was not exported; see the part models")


@dataclass
class Kit:
    """What the parts share.

    Attributes:
        peak: float16 (on a CPU float32) matrix products, FLOP/s, once measured.
        best: by model, the fastest way that is right: (reads/s, runtime, dtype).
    """

    device: str
    quick: bool
    folder: Path
    bundles: dict[str, Bundle] = field(default_factory=dict)
    failed: set[tuple[str, str, str]] = field(default_factory=set)
    peak: float | None = None
    best: dict[str, tuple[float, str, str]] = field(default_factory=dict)

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    def ways(self) -> list[tuple[str, str]]:
        """Return (runtime, precision) of everything that is installed."""
        if not self.on_gpu:
            return list(CPU_WAYS)
        here = usable_runtimes("auto", "auto", {})
        return [(name, dtype) for name in here for dtype in sorted(GPU_RUNTIMES[name]) if dtype != "bfloat16"]

    @contextmanager
    def engines(self, model: str, runtime: str, dtype: str, in_flight: int = 2) -> Iterator[list[Engine]]:
        with ExitStack() as stack:
            opened = open_engines(
                self.bundles[model], EngineRequest(self.device, runtime, dtype, available_cpus(), in_flight)
            )
            yield [stack.enter_context(engine) for engine in opened]


def facts(kit: Kit) -> dict[str, Any]:
    """The device, its driver, and which runtimes can use it."""
    if not kit.on_gpu:
        return {"device": "cpu", "threads": available_cpus(), "runtimes": [name for name, _ in CPU_WAYS]}
    (gpu,) = chosen_gpus(kit.device)
    problems: dict[str, str] = {}
    versions = usable_runtimes("auto", "auto", problems)
    free, total = cuda_device(gpu).memory()
    return {
        "device": gpu.name,
        "compute_capability": gpu.capability,
        "driver": gpu.driver,
        "memory_bytes": {"free": free, "total": total},
        "runtimes": versions,
        "not_usable": problems,
        "nvidia_smi": nvidia_smi("driver_version,power.limit,clocks.max.sm,clocks.max.mem"),
    }


def models(kit: Kit) -> dict[str, Any]:
    """Make the bundles: the starter, and the published size with random weights; with graphs where onnx is there."""
    need_torch()
    from full_size import RANKS, make_checkpoints

    from wyr_batch.models.encoder import EncoderConfig

    made: dict[str, Any] = {}
    small = EncoderConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96)
    folder = kit.folder / "full_size" / "checkpoint"
    make_checkpoints(folder, small if kit.quick else None)
    shutil.copytree(starter_path() / "checkpoint", kit.folder / "starter" / "checkpoint")
    starter = load_bundle()
    for name, ranks, pooling in (("starter", starter.ranks, starter.pooling), ("full_size", RANKS, "mean")):
        folder = kit.folder / name
        try:
            if kit.quick:
                made[name] = {"graphs": "left out of the dry run, but for the one the starter comes with"}
                if name == "starter":
                    shutil.copy(starter_path() / "model.onnx", folder)
            else:
                made[name] = {"graphs_s": round(timed(lambda folder=folder: write_graphs(folder)), 1)}
        except ImportError as error:
            made[name] = {"graphs": f"skipped: no package {error.name}; only torch can be measured"}
        entries = [
            BundleFile(path.relative_to(folder).as_posix(), sha256_of(path), dtype_of(path), kind_of(path))
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]
        text = bundle_json(
            name=name,
            ranks=ranks,
            max_tokens=64 if kit.quick else starter.max_tokens,
            window_bp=378 if kit.quick else starter.window_bp,
            pooling=pooling,
            files=entries,
            training={},
            metrics={},
            licence="",
        )
        (folder / "bundle.json").write_text(text)
        loaded = load_bundle(folder)
        kit.bundles[name] = FreshBundle(**{key: value for key, value in vars(loaded).items() if key != "sha256"})
        made[name]["files"] = {entry.path: entry.dtype for entry in entries if entry.kind == "onnx"}
    return made


def write_graphs(folder: Path) -> None:
    """Export a checkpoint as model.onnx and model.fp16.onnx. Raises: ImportError without the exporter's packages."""
    import onnx  # noqa: F401 - what the exporter needs, asked for first
    import onnxscript  # noqa: F401
    from wyr_batch.export.graph import graph_module
    from wyr_batch.export.onnx_file import onnx_from_torch

    from wyr_batch.models.checkpoints import load_explainer, load_explanandum

    explanandum, _ = load_explanandum(folder / "checkpoint" / "explanandum")
    explainer = load_explainer(folder / "checkpoint" / "explainer")
    for dtype, name in (("float32", "model.onnx"), ("float16", "model.fp16.onnx")):
        module = graph_module(explanandum, explainer, load_bundle().max_tokens, dtype)
        onnx_from_torch(module, folder / name)


def kind_of(path: Path) -> str:
    return "onnx" if path.suffix == ".onnx" else "checkpoint"


def dtype_of(path: Path) -> str:
    return "float16" if path.name == "model.fp16.onnx" else "float32"


def copies(kit: Kit) -> dict[str, Any]:
    """Copy bandwidth between pinned host memory and the device, GB/s."""
    torch = need_torch()
    n_bytes = (1 << 22) if kit.quick else (1 << 28)
    host = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=kit.on_gpu)
    there = torch.empty(n_bytes, dtype=torch.uint8, device=kit.device)
    rates = {}
    for name, target, source in (("to_device", there, host), ("to_host", host, there)):

        def copy(target: Any = target, source: Any = source) -> None:
            target.copy_(source, non_blocking=True)
            wait(torch, kit)

        copy()
        rates[f"{name}_gb_per_s"] = n_bytes / min(timed(copy) for _ in range(5)) / 1e9
    return rates


def matrix_peak(kit: Kit) -> dict[str, Any]:
    """What the device reaches in plain matrix products: the 100 % of every MFU here."""
    torch = need_torch()
    dtype = torch.float16 if kit.on_gpu else torch.float32
    size, repeats = (512, 3) if kit.quick else (8192, 20)
    a = torch.randn(size, size, device=kit.device).to(dtype)
    b = torch.randn(size, size, device=kit.device).to(dtype)

    def multiply() -> None:
        for _ in range(repeats):
            torch.mm(a, b)
        wait(torch, kit)

    multiply()
    seconds = min(timed(multiply) for _ in range(3))
    kit.peak = 2 * size**3 * repeats / seconds
    return {"dtype": str(dtype), "size": size, "flop_per_s": kit.peak}


def parity(kit: Kit) -> dict[str, Any]:
    """Every runtime against float32 on the CPU, on the package's reads, with ragged rows, rows of N and all lengths."""
    found: dict[str, Any] = {}
    for model in kit.bundles:
        for runtime, dtype in kit.ways():
            name = f"{model} {runtime} {dtype}"

            def compare(model: str = model, runtime: str = runtime, dtype: str = dtype) -> dict[str, Any]:
                with kit.engines(model, runtime, dtype, in_flight=1) as engines:
                    return prove(engines[0], available_cpus(), 8 if kit.quick else N_READS).to_json()

            found[name] = tried(compare)
            if found[name].get("verdict") != "passed":
                kit.failed.add((model, runtime, dtype))
    return found


def sweep(kit: Kit) -> dict[str, Any]:
    """Reads/s, tokens/s and MFU over lengths and batch sizes, one and two batches in flight."""
    lengths = (32, 64) if kit.quick else (64, WINDOW_TOKENS, 512)
    budgets = (256,) if kit.quick else (8192, 32768, 49152, 65536)
    rows: list[dict[str, Any]] = []
    problems: dict[str, str] = {}
    for model, runtime, dtype in ((m, r, d) for m in kit.bundles for r, d in kit.ways()):
        if (model, runtime, dtype) in kit.failed:
            problems[f"{model} {runtime} {dtype}"] = "not timed: it is not right, or could not be run"
            continue

        def measure(model: str = model, runtime: str = runtime, dtype: str = dtype) -> dict[str, Any]:
            with kit.engines(model, runtime, dtype) as engines:
                for n_tokens in lengths:
                    for budget in budgets:
                        for in_flight in range(1, len(engines) + 1):
                            row = one_rate(kit, engines[:in_flight], n_tokens, budget)
                            rows.append({"model": model, "runtime": runtime, "dtype": dtype, **row})
            return {}

        if "failed" in (outcome := tried(measure)):
            problems[f"{model} {runtime} {dtype}"] = outcome["failed"]
    for row in rows:
        if row["n_tokens"] == (64 if kit.quick else WINDOW_TOKENS):
            best = (row["reads_per_s"], row["runtime"], row["dtype"])
            kit.best[row["model"]] = max(best, kit.best.get(row["model"], (0.0, "", "")))
    return {"rows": rows, "problems": problems}


def one_rate(kit: Kit, engines: list[Engine], n_tokens: int, budget: int) -> dict[str, Any]:
    """Time batches of equal rows on all engines at once; median of three rounds."""
    padded = -(-n_tokens // engines[0].pad_to) * engines[0].pad_to
    n_rows = max(1, budget // padded)
    ids = np.random.default_rng(0).integers(6, 4102, (n_rows, padded)).astype(np.int32)
    ids[:, 0], ids[:, n_tokens:] = 3, 1
    asked = np.full((n_rows, len(engines[0].bundle.ranks)), -1, np.int32)
    repeats = 1 if kit.quick else 4

    def feed(slot: Engine) -> None:
        for _ in range(repeats):
            slot.infer(ids, asked)

    def all_at_once() -> None:
        threads = [threading.Thread(target=feed, args=(engine,)) for engine in engines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    for slot in engines:
        slot.infer(ids, asked)  # contexts, buffers, kernels
    seconds = statistics.median(timed(all_at_once) for _ in range(3))
    reads_per_s = n_rows * repeats * len(engines) / seconds
    flop = reads_per_s * flop_per_read(engines[0].bundle, n_tokens)
    return {
        "n_tokens": n_tokens,
        "padded_tokens": padded,
        "rows": n_rows,
        "in_flight": len(engines),
        "reads_per_s": reads_per_s,
        "tokens_per_s": reads_per_s * n_tokens,
        "mfu": flop / kit.peak if kit.peak else None,
    }


def flop_per_read(bundle: Bundle, n_tokens: int) -> float:
    """Return the arithmetic of both passes of the encoder over one read; the Explainer (some 1 %) is not counted."""
    path = bundle.folder / "checkpoint" / "explanandum" / "base_model" / "config.json"
    config = json.loads(path.read_text())
    width, inner = config["hidden_size"], config["intermediate_size"]
    per_token = 2 * (4 * width**2 + 3 * width * inner) + 4 * width * n_tokens
    return 2.0 * config["num_hidden_layers"] * per_token * n_tokens


def headline(kit: Kit) -> dict[str, Any]:
    """FASTQ.gz to Parquet with the fastest right runtime of the published size; the paper's 103,638 reads if it can."""
    from full_size import READ_BP, write_reads

    read_bp = 300 if kit.quick else READ_BP
    if "full_size" not in kit.best:
        raise Skipped("no runtime of the published size was timed")
    rate, runtime, dtype = kit.best["full_size"]
    n = 6 if kit.quick else min(PAPER_READS, int(rate * 60))
    source, output = kit.folder / "reads.fastq.gz", kit.folder / "masks.parquet"
    write_reads(source, n, read_bp)
    bundle = kit.bundles["full_size"]
    config = RunConfig((str(source),), output, device=kit.device, runtime=runtime, dtype=dtype, overwrite=True)
    summary: dict[str, Any] = {}
    with swapped(api, "load_bundle", lambda folder: bundle), Watch(kit) as watch:

        def run() -> None:
            summary.update(wyr_batch.run(config).as_json())

        seconds = timed(run)
    table = pq.read_table(output, columns=["status", "mask_mean"])
    statuses = table["status"].to_pylist()
    return {
        "runtime": runtime,
        "dtype": dtype,
        "n_reads": n,
        "read_bp": read_bp,
        "correct": len(statuses) == n and not table["mask_mean"].null_count and "failed" not in statuses,
        "seconds": seconds,
        "reads_per_s": n / seconds,
        "times_paper": n / seconds / PAPER_READS_PER_S,
        "mfu": n / seconds * flop_per_read(bundle, WINDOW_TOKENS) / kit.peak if kit.peak else None,
        "watched": watch.summary(),
        "summary": summary,
    }


def profile(kit: Kit) -> dict[str, Any]:
    """Where the time goes: torch's operations by device time, and the layers of TensorRT plans by name."""
    found: dict[str, Any] = {}
    for runtime, dtype in kit.ways():
        if runtime in ("torch", "tensorrt") and ("full_size", runtime, dtype) not in kit.failed:
            look = torch_operations if runtime == "torch" else plan_layers
            found[f"{runtime} {dtype}"] = tried(lambda r=runtime, d=dtype, look=look: look(kit, r, d))
    return found


def torch_operations(kit: Kit, runtime: str, dtype: str) -> dict[str, Any]:
    torch = need_torch()
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if kit.on_gpu else []
    with kit.engines("full_size", runtime, dtype, in_flight=1) as engines:
        n_rows = 2 if kit.quick else 192
        n_tokens = min(256, engines[0].bundle.max_tokens)
        ids = np.random.default_rng(0).integers(6, 4102, (n_rows, n_tokens)).astype(np.int32)
        ids[:, 0] = 3
        asked = np.full((n_rows, len(engines[0].bundle.ranks)), -1, np.int32)
        engines[0].infer(ids, asked)
        with torch.profiler.profile(activities=kinds) as profiler:
            engines[0].infer(ids, asked)
    key = "self_device_time_total" if kit.on_gpu else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, key))
    total = sum(getattr(event, key) for event in events) or 1
    return {"shares": {event.key[:100]: round(getattr(event, key) / total, 4) for event in events[:25]}}


def plan_layers(kit: Kit, runtime: str, dtype: str) -> dict[str, Any]:
    """Count attention kernels: one per encoder layer and pass is what is hoped for."""
    with kit.engines("full_size", runtime, dtype, in_flight=1) as engines:
        plan = engines[0]._plan  # type: ignore[attr-defined]
        trt, engine = plan.trt, plan.engine
        inspector = engine.create_engine_inspector()
        text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    layers = json.loads(text)["Layers"]
    names = [layer if isinstance(layer, str) else layer.get("Name", "") for layer in layers]
    fused = [name for name in names if "mha" in name.lower()]
    return {"n_layers": len(names), "n_attention_kernels": len(fused), "names": [name[:160] for name in names[:400]]}


class Watch:
    """Memory and power of the GPU while something runs, as nvidia-smi tells every half second."""

    def __init__(self, kit: Kit) -> None:
        self._on = kit.on_gpu
        self._stop = threading.Event()
        self._seen: list[list[float]] = []
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while self._on and not self._stop.wait(0.5):
            words = nvidia_smi("memory.used,power.draw,utilization.gpu")
            try:
                self._seen.append([float(word) for word in (words or "").splitlines()[0].split(",")])
            except (ValueError, IndexError):
                return

    def summary(self) -> dict[str, Any] | str:
        if not self._seen:
            return "skipped: no GPU, or no nvidia-smi"
        columns = np.array(self._seen)
        names = ("memory_mib", "power_w", "utilisation_percent")
        return {
            n: {"median": float(np.median(c)), "max": float(c.max())} for n, c in zip(names, columns.T, strict=True)
        }


def nvidia_smi(query: str) -> str | None:
    """Return what nvidia-smi says of each GPU, a line each; None if it is not there."""
    words = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def need_torch() -> Any:
    try:
        import torch
    except ImportError:
        raise Skipped("no package torch") from None
    return torch


def wait(torch: Any, kit: Kit) -> None:
    if kit.on_gpu:
        torch.cuda.synchronize(kit.device)


def tried(function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return a part's result, or why there is none; nothing but an interrupt ends the kit."""
    start = time.perf_counter()
    try:
        return function()
    except Skipped as reason:
        return {"skipped": str(reason)}
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {str(error)[:600]}", "after_s": time.perf_counter() - start}


@contextmanager
def swapped(module: Any, name: str, value: Any) -> Iterator[None]:
    """Put something else in a module's name for as long as the block lasts."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


SECTIONS: dict[str, Callable[[Kit], dict[str, Any]]] = {
    "facts": facts,
    "copies": copies,
    "matrix_peak": matrix_peak,
    "models": models,
    "parity": parity,
    "sweep": sweep,
    "headline": headline,
    "profile": profile,
}
