"""A part of the GPU kit: whole runs from FASTQ.gz to Parquet with the settings that were fastest."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import wyr_batch
from benchmarks.kit import is_correct, timed
from benchmarks.speed.gpu.engines import flop_per_read
from benchmarks.speed.gpu.machine import Machine, Skipped, nvidia_smi
from wyr_batch.engines.base import Engine
from wyr_batch.job.config import RunConfig
from wyr_batch.job.stats import RunStats

PAPER_READS_PER_S = 86.0
RUN_S = 35.0  # of one run; fewer reads where it would take longer


def headline(machine: Machine) -> Iterator[tuple[str, Any]]:
    """Run the reads twice: from a process in which nothing is loaded, and again with engines that have run.

    Last, and also twice, reads of lengths from a tenth of that up to it, log-uniform.
    """
    best, made = machine.noted("best"), machine.noted("reads")
    if not best or not made:
        raise Skipped("no row of the part sweep, or no reads of the part models")
    n_reads = min(made["n_reads"], max(2, int(RUN_S * best["reads_per_s"])))
    settings = {name: best[name] for name in ("runtime", "dtype", "budget_tokens", "in_flight", "verdict")}
    yield "settings", {**settings, "n_reads": n_reads, "read_bp": made["most_bp"]}
    start = time.perf_counter()
    with machine.engines("full_size", best["runtime"], best["dtype"], best["in_flight"]) as engines:
        opening_s = time.perf_counter() - start
        for name in ("cold", "warm"):
            result = one_run(machine, engines, "reads", n_reads, best["budget_tokens"])
            if name == "cold":
                result |= {"opening_s": opening_s, "seconds_from_start": opening_s + result["seconds"]}
            result["times_paper"] = result["reads_per_s"] / PAPER_READS_PER_S
            result |= machine.mfu(result["reads_per_s"] * flop_per_read(engines[0].bundle, machine.window_tokens))
            yield name, result
        mixed = machine.noted("mixed_reads")
        for name in ("mixed lengths, cold", "mixed lengths"):
            result = one_run(machine, engines, "mixed_reads", mixed["n_reads"], best["budget_tokens"])
            yield name, {**mixed, **result, "bases_per_s": mixed["n_bases"] / result["seconds"]}


def one_run(machine: Machine, engines: list[Engine], name: str, n_reads: int, budget_tokens: int) -> dict[str, Any]:
    """Run the first reads of a file and check the rows."""
    source, output = machine.folder / f"{name}.fastq.gz", machine.folder / "masks.parquet"
    made = machine.noted(name)
    n_bases = made["n_bases"] if n_reads == made["n_reads"] else n_reads * made["most_bp"]
    config = RunConfig((str(source),), output, overwrite=True, max_reads=n_reads, max_batch_tokens=budget_tokens)
    done: list[RunStats] = []
    with Watch(machine) as watch:
        seconds = timed(lambda: done.append(wyr_batch.run(config, engines=engines))).wall_s
    return {
        "correct": is_correct(output, n_reads, n_bases) and not done[0].n_failed,
        "seconds": seconds,
        "reads_per_s": n_reads / seconds,
        "watched": watch.summary(),
        "summary": done[0].as_json(),
    }


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
            words = nvidia_smi("memory.used,power.draw,utilization.gpu,clocks.sm")
            try:
                self._seen.append([float(word) for word in (words or "").splitlines()[0].split(",")])
            except (ValueError, IndexError):
                return

    def summary(self) -> dict[str, Any] | str:
        if not self._seen:
            return "skipped: no GPU, or no nvidia-smi"
        columns = np.array(self._seen)
        names = ("memory_mib", "power_w", "utilisation_percent", "sm_mhz")
        return {
            n: {"median": float(np.median(c)), "max": float(c.max())} for n, c in zip(names, columns.T, strict=True)
        }
