"""Parts of the GPU kit: the device itself, copies to and from it, and its matrix products."""

from __future__ import annotations

from typing import Any

from benchmarks.kit import per_s, repeated
from benchmarks.speed.gpu.machine import CPU_WAYS, Machine, need_torch, nvidia_smi
from wyr_batch.choose import usable_runtimes
from wyr_batch.engines.cuda import chosen_gpus, cuda_device
from wyr_batch.host import available_cpus


def facts(machine: Machine) -> dict[str, Any]:
    """The device, its driver, and which runtimes can use it."""
    if not machine.on_gpu:
        return {"device": "cpu", "threads": available_cpus(), "runtimes": [name for name, _ in CPU_WAYS]}
    (gpu,) = chosen_gpus(machine.device)
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


def copies(machine: Machine) -> dict[str, Any]:
    """Copy bandwidth between pinned host memory and the device, GB/s; the fastest of five copies."""
    torch = need_torch()
    n_bytes = (1 << 22) if machine.quick else (1 << 28)
    host = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=machine.on_gpu)
    there = torch.empty(n_bytes, dtype=torch.uint8, device=machine.device)
    rates = {}
    for name, target, source in (("to_device", there, host), ("to_host", host, there)):

        def copy(target: Any = target, source: Any = source) -> None:
            target.copy_(source, non_blocking=True)
            machine.wait()

        rates[f"{name}_gb_per_s"] = max(per_s(n_bytes / 1e9, repeated(copy, 5)))
    return rates


def matrix_peak(machine: Machine) -> dict[str, Any]:
    """What the device reaches in plain matrix products: the 100 % of every MFU here."""
    torch = need_torch()
    dtype = torch.float16 if machine.on_gpu else torch.float32
    size, products = (512, 3) if machine.quick else (8192, 20)
    a, b = (torch.randn(size, size, device=machine.device).to(dtype) for _ in range(2))

    def multiply() -> None:
        for _ in range(products):
            torch.mm(a, b)
        machine.wait()

    machine.peak = max(per_s(2 * size**3 * products, repeated(multiply, 3)))
    return {"dtype": str(dtype), "size": size, "flop_per_s": machine.peak}
