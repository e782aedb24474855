"""What the parts of the GPU kit share: the device, the bundles, and what has been found out so far."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wyr_batch.bundle import Bundle
from wyr_batch.choose import GPU_RUNTIMES, EngineRequest, open_engines, usable_runtimes
from wyr_batch.engines.base import Engine
from wyr_batch.host import available_cpus

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
class Machine:
    """What the parts share.

    Attributes:
        device: `cuda:N`, or `cpu` for the dry run.
        quick: tiny sizes: does every part work?
        folder: for the bundles and what is made of them.
        bundles: by model.
        failed: (model, runtime, dtype) that is not right, or could not be run.
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
        """Open a model in one way, once for each batch in flight, for as long as the block lasts."""
        request = EngineRequest(self.device, runtime, dtype, available_cpus(), in_flight)
        with ExitStack() as stack:
            yield [stack.enter_context(engine) for engine in open_engines(self.bundles[model], request)]

    def mfu(self, flop_per_s: float) -> float | None:
        """Return what share of the matrix products' speed this is, None if that has not been measured."""
        return flop_per_s / self.peak if self.peak else None

    def wait(self) -> None:
        """Wait until torch has done everything on the device."""
        if self.on_gpu:
            need_torch().cuda.synchronize(self.device)


def need_torch() -> Any:
    """Return torch. Raises: Skipped without it."""
    try:
        import torch
    except ImportError:
        raise Skipped("no package torch") from None
    return torch


def tried(function: Callable[..., dict[str, Any]], *arguments: object) -> dict[str, Any]:
    """Return a part's result, or why there is none; nothing but an interrupt ends the kit."""
    try:
        return function(*arguments)
    except Skipped as reason:
        return {"skipped": str(reason)}
    except Exception as error:  # each runtime has exceptions of its own
        return {"failed": f"{type(error).__name__}: {str(error)[:600]}"}


def nvidia_smi(query: str) -> str | None:
    """Return what nvidia-smi says of each GPU, a line each; None if it is not there."""
    words = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
