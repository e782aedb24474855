"""What every benchmark records about where it ran."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from wyr_batch.tokens.kmers import vocabulary

PACKAGES = ("numpy", "pyarrow", "pysam", "onnxruntime", "onnxruntime-gpu", "tensorrt", "openvino", "torch")
PACKAGES += ("onnx", "onnxscript", "transformers", "captum")


def environment() -> dict[str, Any]:
    """Return the commit, the machine and the versions of what was measured."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "command": " ".join(["python", *(Path(w).name if Path(w).is_absolute() else w for w in sys.argv)]),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "cpu": _cpu_model(),
        "cpus_available": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": versions,
    }


def esm_tokenizer() -> Any:
    """Return transformers' EsmTokenizer over the published vocabulary."""
    from transformers import EsmTokenizer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text("\n".join(vocabulary()))
        return EsmTokenizer(str(path), eos_token=None)  # as published


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True)
    return done.stdout.strip()


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    except OSError:
        models = []
    return models[0] if models else platform.processor()
