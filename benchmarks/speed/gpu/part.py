"""One process of the GPU kit: some parts, one after the other. `__main__.py` starts it and watches.

    python -m benchmarks.speed.gpu.part FOLDER --device cuda:0 facts ceilings

A part is a function of the Machine that yields names and results. Its file is written anew after each, so what was
yielded stays whatever comes next. After a part that failed the process ends: a GPU may be unusable to it.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import wyr_batch
from benchmarks import kit
from benchmarks.speed.gpu.machine import Machine, Skipped
from benchmarks.speed.gpu.tensorfiles import stand_in_for_safetensors

Part = Callable[[Machine], Iterator[tuple[str, Any]]]

# Part -> module and function; a module imports the runtime of its parts, and no other, when they are called.
PLACES = {
    "facts": "facts.facts",
    "ceilings": "ceilings.ceilings",
    "models": "models.models",
    "proof": "engines.proof",
    "sweep": "engines.sweep",
    "split": "split.split",
    "changes": "changes.changes",
    "headline": "whole.headline",
    "float32": "engines.float32",
    "training": "training.training",
    "starter": "engines.starter",
    "graphs": "graphs.graphs",
    "exported": "models.exported",
    "onnx": "engines.onnx",
    "tensorrt": "engines.tensorrt",
}


def part_named(name: str) -> Part:
    """Return the function of a part."""
    module, _, function = PLACES[name].partition(".")
    part: Part = getattr(importlib.import_module(f"benchmarks.speed.gpu.{module}"), function)
    return part


def read_part(folder: Path, name: str) -> dict[str, Any]:
    """Return what a part has found so far: results, and `done` once it has ended. Nothing if it has not begun."""
    try:
        found: dict[str, Any] = json.loads((folder / f"part-{name}.json").read_text())
    except FileNotFoundError:
        return {}
    return found


def run_part(machine: Machine, name: str, part: Part) -> bool:
    """Run a part and keep what it yields; nothing it raises is raised. Says whether it ended well."""
    path = machine.folder / f"part-{name}.json"
    found: dict[str, Any] = {"results": {}}
    start = time.perf_counter()

    def keep(**more: Any) -> None:
        found.update(more, seconds=round(time.perf_counter() - start, 1))
        kit.write_json(path.with_suffix(".new"), found)
        os.replace(path.with_suffix(".new"), path)

    try:
        for key, result in part(machine):
            found["results"][key] = result
            keep()
    except Skipped as reason:
        found["skipped"] = str(reason)
    except BaseException as error:  # runtimes have exceptions of their own, and some that are no Exception
        found["failed"] = f"{type(error).__name__}: {str(error)[:600]}"
    keep(done=True)
    return "failed" not in found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("parts", nargs="+", choices=list(PLACES))
    args = parser.parse_args()
    wyr_batch.__path__.append(str(kit.ROOT))  # wyr_batch.export, where the checkout is not installed
    os.environ["WYR_CACHE"] = str(args.folder / "cache")
    stand_in_for_safetensors()
    machine = Machine(args.device, args.quick, args.folder)
    for name in args.parts:
        if not run_part(machine, name, part_named(name)):
            sys.exit(1)
        gc.collect()


if __name__ == "__main__":
    main()
