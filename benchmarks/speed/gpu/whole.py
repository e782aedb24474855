"""Parts of the GPU kit: whole runs from FASTQ.gz to Parquet, and where their time goes."""

from __future__ import annotations

import json
import threading
from typing import Any

import numpy as np

import wyr_batch
from benchmarks.kit import is_correct, random_batch, timed, write_reads
from benchmarks.published_size import READ_BP
from benchmarks.speed.gpu.engines import flop_per_read
from benchmarks.speed.gpu.machine import WINDOW_TOKENS, Machine, Skipped, need_torch, nvidia_smi, tried
from wyr_batch.job.config import RunConfig
from wyr_batch.job.stats import RunStats

PAPER_READS, PAPER_READS_PER_S = 103_638, 86.0


def headline(machine: Machine) -> dict[str, Any]:
    """FASTQ.gz to Parquet with the fastest right runtime of the published size; the paper's 103,638 reads if it can.

    The engines are open beforehand.
    """
    if "full_size" not in machine.best:
        raise Skipped("no runtime of the published size was timed")
    rate, runtime, dtype = machine.best["full_size"]
    n, read_bp = (6, 300) if machine.quick else (min(PAPER_READS, int(rate * 60)), READ_BP)
    source, output = machine.folder / "reads.fastq.gz", machine.folder / "masks.parquet"
    n_bases = write_reads(source, n, read_bp, read_bp)
    config = RunConfig((str(source),), output, overwrite=True)
    done: list[RunStats] = []
    with machine.engines("full_size", runtime, dtype) as engines, Watch(machine) as watch:
        seconds = timed(lambda: done.append(wyr_batch.run(config, engines=engines))).wall_s
    flop_per_s = n / seconds * flop_per_read(machine.bundles["full_size"], WINDOW_TOKENS)
    return {
        "runtime": runtime,
        "dtype": dtype,
        "n_reads": n,
        "read_bp": read_bp,
        "correct": is_correct(output, n, n_bases) and not done[0].n_failed,
        "seconds": seconds,
        "reads_per_s": n / seconds,
        "times_paper": n / seconds / PAPER_READS_PER_S,
        "mfu": machine.mfu(flop_per_s),
        "watched": watch.summary(),
        "summary": done[0].as_json(),
    }


def profile(machine: Machine) -> dict[str, Any]:
    """Where the time goes: torch's operations by device time, and the layers of TensorRT plans by name."""
    found: dict[str, Any] = {}
    for runtime, dtype in machine.ways():
        if runtime in ("torch", "tensorrt") and ("full_size", runtime, dtype) not in machine.failed:
            look = torch_operations if runtime == "torch" else plan_layers
            found[f"{runtime} {dtype}"] = tried(look, machine, runtime, dtype)
    return found


def torch_operations(machine: Machine, runtime: str, dtype: str) -> dict[str, Any]:
    """Return the share of the device's time (on a CPU, of the CPU's) of the 25 slowest operations of one batch."""
    torch = need_torch()
    kinds = [torch.profiler.ProfilerActivity.CPU]
    kinds += [torch.profiler.ProfilerActivity.CUDA] if machine.on_gpu else []
    with machine.engines("full_size", runtime, dtype, in_flight=1) as engines:
        bundle = engines[0].bundle
        batch = random_batch(2 if machine.quick else 192, min(256, bundle.max_tokens), len(bundle.ranks))
        engines[0].infer(*batch)
        with torch.profiler.profile(activities=kinds) as profiler:
            engines[0].infer(*batch)
    key = "self_device_time_total" if machine.on_gpu else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, key))
    total = sum(getattr(event, key) for event in events) or 1
    return {"shares": {event.key[:100]: round(getattr(event, key) / total, 4) for event in events[:25]}}


def plan_layers(machine: Machine, runtime: str, dtype: str) -> dict[str, Any]:
    """Count attention kernels: one per encoder layer and pass is what is hoped for."""
    with machine.engines("full_size", runtime, dtype, in_flight=1) as engines:
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

    def __init__(self, machine: Machine) -> None:
        self._on = machine.on_gpu
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
