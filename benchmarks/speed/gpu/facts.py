"""A part of the GPU kit: the device, its driver, and what is installed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from typing import Any

from benchmarks.speed.gpu.machine import Machine, need_torch, nvidia_smi, tried
from wyr_batch.engines.cuda import chosen_gpus, cuda_device
from wyr_batch.host import available_cpus

PACKAGES = ("torch", "triton", "onnxruntime", "onnxruntime-gpu", "tensorrt", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")


def facts(machine: Machine) -> Iterator[tuple[str, Any]]:
    """Say what this machine is; asks runtimes for nothing, so that none but torch is imported."""
    yield "threads", available_cpus()
    yield "packages", {name: version for name in PACKAGES if (version := version_of(name))}
    yield "torch", tried(torch_facts)
    if machine.on_gpu:
        (gpu,) = chosen_gpus(machine.device)
        yield "device", {"name": gpu.name, "compute_capability": gpu.capability, "driver": gpu.driver}
        yield "memory_bytes", dict(zip(("free", "total"), cuda_device(gpu).memory(), strict=True))
        for query in (
            "driver_version,power.limit",
            "clocks.max.sm,clocks.max.mem",
            "persistence_mode,mig.mode.current",
        ):
            yield query, nvidia_smi(query)


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def torch_facts() -> dict[str, Any]:
    torch = need_torch()
    return {"version": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
