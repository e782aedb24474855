"""The GPU kit: its dry run on the CPU, and that nothing a part does costs another part, or what it had found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch

from benchmarks.speed.gpu import engines, tensorfiles
from benchmarks.speed.gpu.__main__ import PARTS, Conductor
from benchmarks.speed.gpu.changes import all_changes
from benchmarks.speed.gpu.machine import Machine, Skipped
from benchmarks.speed.gpu.models import models
from benchmarks.speed.gpu.part import PLACES, part_named, read_part, run_part
from benchmarks.speed.gpu.split import kernel_shares
from wyr_batch.kernels.choose import triton_version
from wyr_batch.proof.compare import FLOAT32

ROOT = Path(__file__).parents[1]


def run_kit(output: Path, *words: str, packages: Path | None = None) -> dict[str, Any]:
    path = os.pathsep.join(filter(None, [str(packages or ""), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", "benchmarks.speed.gpu", "--device", "cpu", "--quick", "-o", str(output)]
    command += ["--minutes", "60", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    parts: dict[str, Any] = json.loads(output.read_text())["parts"]
    return parts


# What a machine with torch, numpy, pyarrow, click and onnx does not have.
ABSENT = ("pysam", "rich", "safetensors", "transformers", "onnxruntime", "onnxscript", "zlib_ng", "backports")
BARE = """
import importlib.machinery, sys

class Bare(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {absent} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Bare
"""


def make_bare(folder: Path, absent: tuple[str, ...] = ABSENT) -> None:
    """Make a Python that looks for its packages in this folder first find none of the absent ones."""
    (folder / "sitecustomize.py").write_text(BARE.format(absent=absent))


def test_dry_run_goes_through_every_part_on_a_bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for ONNX Runtime, which a part of its own is for."""
    monkeypatch.setenv("PATH", str(tmp_path))  # no git either
    make_bare(tmp_path, tuple(name for name in ABSENT if name != "onnxruntime"))
    parts = run_kit(tmp_path / "gpu.json", packages=tmp_path)
    assert json.loads((tmp_path / "gpu.json").read_text())["commit"] == "unknown"
    assert tuple(parts) == PARTS
    assert {name: part.get("skipped") for name, part in parts.items() if "skipped" in part} == {
        "graphs": "no GPU",
        "exported": "left out of the dry run, which has the graph that the starter comes with",
        "tensorrt": "no GPU",
    }
    assert not [name for name, part in parts.items() if "failed" in part or "cut" in part]
    results = {name: part["results"] for name, part in parts.items()}
    proofs = {
        "torch": [results["proof"]["full_size torch float32"], results["starter"]["starter torch float32, proof"]],
        "onnxruntime": [results["onnx"]["starter onnx float32, proof"]],
    }
    for runtime, records in proofs.items():
        for record in records:
            assert record["verdict"] == "passed"
            assert set(record["versions"]) == {runtime}, "no two runtimes in a process"
    assert "was not exported" in results["onnx"]["full_size onnx float32"]["skipped"]
    rows = results["sweep"]["rows"] + results["onnx"]["starter onnx float32, rows"]
    assert all(row["reads_per_s"] > 0 and row["mfu_of_measured"] > row["mfu"] > 0 for row in rows)
    assert {row["verdict"] for row in rows} == {"passed"}
    assert not [change for change in results["changes"].values() if "failed" in change]
    assert set(all_changes()) | {"two batches in flight"} == set(results["changes"])
    skipped = {name for name, change in results["changes"].items() if "skipped" in change}
    interpreted = triton_version() and os.environ.get("TRITON_INTERPRET") == "1"
    assert skipped == (set() if interpreted else {name for name in all_changes() if name.startswith("kernels")})
    for name in set(all_changes()) - skipped:
        change = results["changes"][name]
        assert change["labels_that_agree"] == 1
        for difference in change["differences"].values():
            assert difference["max"] < 1e-5
    assert results["changes"]["two batches in flight"]["two_s"] > 0
    for way in results["training"].values():
        assert way["seconds_a_step"] > 0
        assert way["loss"][0] != way["loss"][1], "the optimiser takes steps"
    pieces = results["split"]["pieces_ms"]
    named = ("plain", "Explainer's features", "Explainer's classes", "masked", "heads plain", "heads masked")
    assert 0 < sum(pieces[name] for name in named) <= pieces["whole"]
    for run in ("cold", "warm"):
        assert results["headline"][run]["correct"] is True
    assert not [found for found in results["training"].values() if "failed" in found]


def test_missing_packages_and_missing_gpu_are_said_and_the_rest_goes_on(tmp_path: Path) -> None:
    make_bare(tmp_path)
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('no torch here', name='torch')\n")
    parts = run_kit(tmp_path / "a.json", "--parts", "facts", "ceilings", "sweep", "onnx", packages=tmp_path)
    assert parts["facts"]["results"]["torch"] == {"skipped": "no package torch"}
    assert parts["ceilings"]["skipped"] == "no package torch"
    assert "the part models did not make it" in parts["sweep"]["skipped"]
    assert parts["onnx"]["skipped"] == "no package onnxruntime"
    parts = run_kit(tmp_path / "b.json", "--device", "cuda:99", "--parts", "facts", "sweep")
    assert "UsageError: --device: got cuda:99, expected" in parts["facts"]["failed"]
    assert parts["facts"]["results"]["threads"] > 0, "what was found before stays"
    assert "skipped" in parts["sweep"], "in a process of its own"


def test_every_part_is_there_and_has_a_place() -> None:
    assert set(PARTS) == set(PLACES)
    for name in PARTS:
        assert callable(part_named(name))


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit("bad"), BaseException("bad"), Skipped("bad")])
def test_whatever_a_part_raises_what_it_found_stays(error: BaseException, tmp_path: Path) -> None:
    def part(machine: Machine) -> Iterator[tuple[str, Any]]:
        yield "first", 1
        raise error

    machine = Machine("cpu", True, tmp_path)
    went_well = isinstance(error, Skipped)
    assert run_part(machine, "facts", part) is went_well
    found = read_part(tmp_path, "facts")
    assert (found["results"], found["done"]) == ({"first": 1}, True)
    assert "bad" in found["skipped" if went_well else "failed"]


SCRIPT = """
import os, sys, time
from pathlib import Path
from benchmarks.speed.gpu.machine import Machine
from benchmarks.speed.gpu.part import run_part

def good(machine):
    yield "process", os.getpid()

def slow(machine):
    yield from good(machine)
    time.sleep(600)

def dies(machine):
    yield from good(machine)
    os.kill(os.getpid(), 9)

def raises(machine):
    yield from good(machine)
    raise ValueError("bad")

parts = {"good": good, "fine": good, "slow": slow, "dies": dies, "raises": raises, "last": good}
for name in sys.argv[2:]:
    if not run_part(Machine("cpu", True, Path(sys.argv[1])), name, parts[name]):
        sys.exit(1)
"""


def conducted(tmp_path: Path, limits: dict[str, float], minutes: float) -> dict[str, Any]:
    (tmp_path / "parts.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "parts.py"), str(tmp_path)]
    output = tmp_path / "out.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        Conductor(output, tmp_path, command, {}, time.monotonic() + 60 * minutes).run(limits)
    parts: dict[str, Any] = json.loads(output.read_text())["parts"]
    return parts


def test_a_part_that_dies_raises_or_takes_too_long_costs_no_other(tmp_path: Path) -> None:
    names = ("good", "fine", "slow", "dies", "raises", "last")
    parts = conducted(tmp_path, {name: 5 if name == "slow" else 600 for name in names}, minutes=60)
    assert tuple(parts) == names
    assert parts["slow"]["cut"].startswith("after ")
    assert parts["dies"]["failed"] == "its process ended with -9"
    assert parts["raises"]["failed"] == "ValueError: bad"
    processes = [part["results"]["process"] for part in parts.values()]
    assert processes[0] == processes[1] == processes[2], "parts share a process"
    assert len(set(processes)) == 4, "and after each that did not end well comes a new one"


def test_when_all_time_is_up_no_part_begins(tmp_path: Path) -> None:
    parts = conducted(tmp_path, {"good": 600, "last": 600}, minutes=0)
    assert parts == {name: {"cut": "not begun: the time of all parts is up"} for name in ("good", "last")}


def test_kernels_are_counted_once() -> None:
    def event(key: str, kind: str, device_us: float, cpu_us: float, count: int) -> Any:
        device = SimpleNamespace(name=kind)
        times = {"self_device_time_total": device_us, "self_cpu_time_total": cpu_us}
        return SimpleNamespace(key=key, device_type=device, count=count, **times)

    events = [
        event("aten::mm", "CPU", 90.0, 7.0, 3),  # charged with the time of the kernel it launches
        event("gemm_kernel", "CUDA", 90.0, 0.0, 3),
        event("norm_kernel", "CUDA", 10.0, 0.0, 2),
    ]
    found = kernel_shares(events, on_gpu=True)
    assert found == {"launches": 5, "total_us": 100.0, "shares": {"gemm_kernel": 0.9, "norm_kernel": 0.1}}
    assert kernel_shares(events, on_gpu=False)["shares"] == {"aten::mm": 1.0}


def test_an_engine_that_fails_its_proof_is_timed_and_the_row_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine("cpu", True, tmp_path)
    list(models(machine))
    monkeypatch.setattr(engines, "thresholds_of", lambda engine: replace(FLOAT32, padding=-1.0))
    found = dict(engines.prove_and_time(machine, "full_size", "torch", "float32"))
    assert found["full_size torch float32, proof"]["verdict"] == "failed"
    (row,) = found["full_size torch float32, rows"]
    assert row["verdict"] == "failed"
    assert row["reads_per_s"] > 0


def test_files_of_the_stand_in_are_safetensors(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 5),
        "b.half": torch.randn(4).half(),
        "number": torch.tensor(7),
        "none": torch.empty(0, 2, dtype=torch.bfloat16),
    }
    tensorfiles.save_file(tensors, tmp_path / "ours", {"format": "pt"})
    safetensors.torch.save_file(tensors, tmp_path / "theirs", {"format": "pt"})
    for read, path in ((safetensors.torch.load_file, "ours"), (tensorfiles.load_file, "theirs")):
        found = read(tmp_path / path)
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor)
