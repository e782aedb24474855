"""What the parts of the GPU kit share: the device, the bundles, timing, and what earlier parts have found out."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import kit
from wyr_batch.bundle import Bundle, load_bundle
from wyr_batch.choose import EngineRequest, load_on_gpu, open_engines
from wyr_batch.engines.base import Engine
from wyr_batch.engines.cuda import chosen_gpus
from wyr_batch.host import available_cpus

WINDOW_TOKENS, BUDGET_TOKENS = 251, 49152  # a read of 1,500 bp, `<cls>` counted; the least default batch on a GPU
H100_FLOP_PER_S = 989e12  # float16, dense, as NVIDIA states it
NOT_PROVEN = "not proven"


class Skipped(Exception):
    """A part that cannot be measured here; the message says what is missing."""


class FreshBundle(Bundle):
    """A bundle made a moment ago: the kit proves its engines itself, so its graphs carry no record yet."""

    def verified(self, kind: str, dtype: str) -> Path:
        for entry in self.files:
            if (entry.kind, entry.dtype) == (kind, dtype):
                return self.verified_entry(entry)
        raise Skipped(f"no {kind} {dtype}: it was not exported; see the part exported")


@dataclass(frozen=True)
class Machine:
    """The machine, as the parts of one process see it.

    Attributes:
        device: `cuda:N`, or `cpu` for the dry run.
        quick: tiny sizes: does every part work?
        folder: for bundles, reads, results, and what is noted for later parts.
    """

    device: str
    quick: bool
    folder: Path

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def half(self) -> str:
        """The precision of most parts; a CPU's dry run has float32 instead."""
        return "float16" if self.on_gpu else "float32"

    @property
    def window_tokens(self) -> int:
        return 61 if self.quick else WINDOW_TOKENS

    def note(self, key: str, value: Any) -> None:
        """Keep something for later parts, in whatever process."""
        kit.write_json(self.folder / f"note-{key}.json", {"value": value})

    def noted(self, key: str, otherwise: Any = None) -> Any:
        """Return what an earlier part has kept."""
        path = self.folder / f"note-{key}.json"
        return json.loads(path.read_text())["value"] if path.exists() else otherwise

    def bundle(self, model: str) -> Bundle:
        """Return a model's bundle. Raises: Skipped if the part models has not made it."""
        if not (self.folder / model / "bundle.json").exists():
            raise Skipped(f"no {model}: the part models did not make it")
        loaded = load_bundle(self.folder / model)
        return FreshBundle(**{key: value for key, value in vars(loaded).items() if key != "sha256"})

    @contextmanager
    def engines(self, model: str, runtime: str, dtype: str, in_flight: int = 2) -> Iterator[list[Engine]]:
        """Open a model in one way, unproven, with room for so many batches, for as long as the block lasts."""
        bundle, threads = self.bundle(model), available_cpus()
        with ExitStack() as stack:
            if self.on_gpu:
                request = EngineRequest(self.device, runtime, dtype, threads, in_flight)
                (gpu,) = chosen_gpus(self.device)
                yield [stack.enter_context(engine) for engine in load_on_gpu(bundle, gpu, request)]
            else:
                opened = open_engines(bundle, EngineRequest("cpu", runtime, dtype, threads, in_flight))
                yield [stack.enter_context(engine) for engine in opened]

    def verdict(self, model: str, runtime: str, dtype: str) -> str:
        """Return what the proof said: passed, failed, or that there was none."""
        verdict: str = self.noted(f"verdict-{model}-{runtime}-{dtype}", NOT_PROVEN)
        return verdict

    def mfu(self, flop_per_s: float) -> dict[str, float | None]:
        """Return what share this is of an H100's stated speed, and of the model's own products as measured."""
        peak = self.noted("peak")
        return {"mfu": flop_per_s / H100_FLOP_PER_S, "mfu_of_measured": flop_per_s / peak if peak else None}

    def wait(self) -> None:
        """Wait until torch has done everything on the device."""
        if self.on_gpu:
            need_torch().cuda.synchronize(self.device)

    def seconds(self, function: Callable[[], object], least_s: float = 0.1) -> float:
        """Return seconds of one call: the median of three rounds of as many calls as take `least_s`."""
        for _ in range(1 if self.quick else 2):
            function()
        self.wait()
        n_calls, rounds = 1, []
        for round_number in range(2 if self.quick else 4):
            start = time.perf_counter()
            for _ in range(n_calls):
                function()
            self.wait()
            took = (time.perf_counter() - start) / n_calls
            if round_number:
                rounds.append(took)
            elif not self.quick:  # the first round says how many calls
                n_calls = max(1, min(1000, round(least_s / took)))
        return statistics.median(rounds)


def need_torch() -> Any:
    """Return torch. Raises: Skipped without it."""
    try:
        import torch
    except ImportError:
        raise Skipped("no package torch") from None
    return torch


def tried(function: Callable[..., Any], *arguments: object) -> Any:
    """Return a result, or why there is none, so that the rest of a part goes on."""
    try:
        return function(*arguments)
    except Skipped as reason:
        return {"skipped": str(reason)}
    except Exception as error:  # each runtime has exceptions of its own
        return {"failed": f"{type(error).__name__}: {str(error)[:600]}"}


def nvidia_smi(query: str) -> str | None:
    """Return what nvidia-smi says of each GPU, a line each; None if it is not there, or does not know the words."""
    words = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
