"""A part of the GPU kit: where the time of one batch goes, on the device and before it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from benchmarks.kit import random_batch
from benchmarks.speed.gpu.machine import BUDGET_TOKENS, Machine, need_torch, nvidia_smi, tried
from benchmarks.speed.gpu.models import gpu_module

BATCHES = 8
BUSY = (
    "clocks.sm,clocks.mem,power.draw,temperature.gpu",
    "clocks_event_reasons.active",
    "clocks_throttle_reasons.active",
)


class Stopwatch:
    """Times named pieces of a batch between events on the stream; on a CPU, by the clock.

    A method that is watched is timed each time it is called; the second call in a batch has the second name.
    """

    def __init__(self, machine: Machine) -> None:
        self._torch, self._on_gpu = need_torch(), machine.on_gpu
        self._machine = machine
        self._pieces: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
        self._calls: dict[str, int] = defaultdict(int)
        self._watched: list[tuple[Any, str]] = []

    def watch(self, owner: Any, method: str, *names: str) -> None:
        """Time a method of an object under one name after the other."""
        inner: Callable[..., Any] = getattr(owner, method)

        def timed(*arguments: Any) -> Any:
            name = names[self._calls[method] % len(names)]
            self._calls[method] += 1
            return self.piece(name, inner, *arguments)

        setattr(owner, method, timed)
        self._watched.append((owner, method))

    def stop(self) -> None:
        """Watch no longer."""
        for owner, method in self._watched:
            delattr(owner, method)

    def piece(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Time one call."""
        start = self._mark()
        result = function(*arguments)
        self._pieces[name].append((start, self._mark()))
        return result

    def clear(self) -> None:
        self._pieces.clear()

    def milliseconds(self) -> dict[str, float]:
        """Return the mean of each piece."""
        self._machine.wait()
        spans = {
            name: [a.elapsed_time(b) if self._on_gpu else 1000 * (b - a) for a, b in pairs]
            for name, pairs in self._pieces.items()
        }
        return {name: sum(span) / len(span) for name, span in spans.items()}

    def _mark(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = self._torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def split(machine: Machine) -> Iterator[tuple[str, Any]]:
    """Time the pieces of a batch, and the host's enqueueing; count kernels; look at memory and clocks.

    The Explainer's features are not beside the plain pass here but before it, so that each has a time.
    """
    torch = need_torch()
    with machine.engines("full_size", "torch", machine.half, in_flight=1) as engines, torch.inference_mode():
        module = engines[0]._model.module if machine.on_gpu else gpu_module(machine)  # type: ignore[attr-defined]
        run = partial(module, padded=False)
        yield "ways", module.ways
        n_rows = 2 if machine.quick else BUDGET_TOKENS // 256
        ids, asked = random_batch(n_rows, machine.window_tokens, len(engines[0].bundle.ranks))
        engines[0].infer(ids, asked)
        start = time.perf_counter()
        for _ in range(BATCHES):
            engines[0].infer(ids, asked)
        yield "engine_ms", 1000 * (time.perf_counter() - start) / BATCHES

        there, wanted = torch.from_numpy(ids).to(machine.device), torch.from_numpy(asked).to(machine.device)
        yield "kernels", tried(kernels, machine, lambda: run(there, wanted))
        yield "pieces_ms", pieces(machine, module, there, wanted)
        if machine.on_gpu:
            torch.cuda.reset_peak_memory_stats()
            run(there, wanted)
            yield "peak_memory_bytes", torch.cuda.max_memory_allocated()
            yield "clocks", under_load(machine, lambda: run(there, wanted))


def pieces(machine: Machine, module: Any, ids: Any, asked: Any) -> dict[str, float]:
    """Return milliseconds of each piece of a batch, of all of it on the device, and of the host's enqueueing it."""
    stopwatch = Stopwatch(machine)
    model = module.explanandum
    stopwatch.watch(module.encoder, "encode", "plain", "masked")
    stopwatch.watch(model, "pool", "pool plain", "pool masked")
    stopwatch.watch(model, "logits", "heads plain", "heads masked")
    stopwatch.watch(module.explainer, "ahead", "Explainer's features")
    stopwatch.watch(module.explainer, "class_logits", "Explainer's classes")
    host_s = 0.0
    for batch in range(BATCHES + 1):
        if batch == 1:  # the first one was to warm up
            stopwatch.clear()
            host_s = 0.0
        machine.wait()
        start = time.perf_counter()
        out = stopwatch.piece("whole", partial(module, padded=False), ids, asked)
        host_s += time.perf_counter() - start
        stopwatch.piece("copy back", lambda out=out: [tensor.cpu() for tensor in out])
    stopwatch.stop()
    return {**stopwatch.milliseconds(), "host enqueues": 1000 * host_s / BATCHES}


def kernels(machine: Machine, run: Callable[[], Any]) -> dict[str, Any]:
    """Count what a batch launches, and return the share of time of the slowest kernels (on a CPU, operations)."""
    torch = need_torch()
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if machine.on_gpu else []
    run()
    with torch.profiler.profile(activities=activities) as profiler:
        run()
        machine.wait()
    return kernel_shares(profiler.key_averages(), machine.on_gpu)


def kernel_shares(events: Iterable[Any], on_gpu: bool) -> dict[str, Any]:
    """Return the number of kernels, and each one's share of the device's time.

    An operation of the CPU is charged with the time of the kernels that it launches, which are events of their own:
    only those of the device count.
    """
    kind = "CUDA" if on_gpu else "CPU"
    here = [event for event in events if event.device_type.name == kind]
    key = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    here.sort(key=lambda event: -float(getattr(event, key)))
    total = sum(getattr(event, key) for event in here) or 1
    return {
        "launches": sum(event.count for event in here),
        "total_us": total,
        "shares": {event.key[:100]: round(getattr(event, key) / total, 4) for event in here[:25]},
    }


def under_load(machine: Machine, run: Callable[[], Any]) -> dict[str, Any]:
    """Return clocks, power, and why clocks are held down, while batches run."""
    found = {}
    for query in BUSY:
        for _ in range(BATCHES):
            run()
        found[query] = nvidia_smi(query)
        machine.wait()
    return found
