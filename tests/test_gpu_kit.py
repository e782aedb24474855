"""The proof kit's dry run on the CPU: every part works or says why not, and a part that fails does not end it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PARTS = ("facts", "copies", "matrix_peak", "models", "parity", "sweep", "headline", "profile")


def run_kit(output: Path, *words: str, packages: Path | None = None) -> dict[str, Any]:
    path = os.pathsep.join(filter(None, [str(packages or ""), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", "benchmarks.speed.gpu", "--device", "cpu", "--quick", "-o", str(output), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    parts: dict[str, Any] = json.loads(output.read_text())["parts"]
    return parts


def test_dry_run_goes_through_every_part(tmp_path: Path) -> None:
    parts = run_kit(tmp_path / "gpu.json")
    assert tuple(parts) == PARTS
    assert not [name for name, part in parts.items() if "failed" in part or "skipped" in part]
    parity = parts["parity"]
    assert {name: record.get("verdict") for name, record in parity.items()} == {
        "starter torch float32": "passed",
        "starter onnx float32": "passed",
        "full_size torch float32": "passed",
        "full_size onnx float32": None,
    }
    assert "was not exported" in parity["full_size onnx float32"]["skipped"]
    rows = parts["sweep"]["rows"]
    assert {(row["model"], row["runtime"]) for row in rows} == {
        ("starter", "torch"),
        ("starter", "onnx"),
        ("full_size", "torch"),
    }
    assert all(row["reads_per_s"] > 0 and row["mfu"] > 0 for row in rows)
    assert parts["headline"]["correct"] is True
    assert parts["headline"]["n_reads"] == 6
    assert sum(parts["profile"]["torch float32"]["shares"].values()) > 0.5


def test_missing_package_and_missing_gpu_are_said_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('no torch here', name='torch')\n")
    parts = run_kit(tmp_path / "a.json", "--parts", "facts", "copies", "sweep", packages=tmp_path)
    assert parts["copies"] == {"skipped": "no package torch"}
    assert parts["sweep"]["rows"] == []
    parts = run_kit(tmp_path / "b.json", "--device", "cuda:99", "--parts", "facts", "sweep")
    assert "UsageError: --device: got cuda:99, expected" in str(parts["facts"]["failed"])
    assert "sweep" in parts
