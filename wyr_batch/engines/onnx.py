"""ONNX Runtime on the CPU: the default engine."""

from __future__ import annotations

import os
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType
from typing import Any

from wyr_batch.bundle import Bundle
from wyr_batch.engines.base import Engine
from wyr_batch.engines.signature import INPUTS, OUTPUTS, EngineOutput, Int32s
from wyr_batch.errors import MissingExtraError, ModelError, UsageError


def import_onnxruntime() -> ModuleType:
    """Return onnxruntime, without the reports on its use that it sends to an analytics host from version 1.29 on.

    They are switched off by an environment variable that it reads when it is imported.

    Raises: MissingExtraError; UsageError where two distributions of it are installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    check_one_distribution()
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("--runtime onnx", "onnxruntime", "cpu") from None
    module: ModuleType = onnxruntime
    return module


def check_one_distribution() -> None:
    """Raise UsageError where both distributions of ONNX Runtime are installed: each overwrites files of the other."""
    both = ("onnxruntime", "onnxruntime-gpu")
    found = {distribution.metadata["Name"] for name in both for distribution in distributions(name=name)}
    if found.issuperset(both):
        raise UsageError(
            "--runtime onnx",
            "both onnxruntime and onnxruntime-gpu, which overwrite files of each other",
            "one of the two",
            "Run: pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'wyr-batch[gpu]' (without a "
            "GPU: 'wyr-batch[cpu]')",
        )


def open_session(path: Path, threads: int) -> Any:
    """Open an ONNX file in ONNX Runtime on the CPU.

    Memory patterns are off (batches have many shapes, and each would keep its own), and idle threads sleep instead
    of spinning, since reading and writing want the cores too.

    Raises: MissingExtraError without onnxruntime; ModelError if the file cannot be loaded.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises types of its own, all of them about the file
        raise ModelError(path, f"'{str(error)[:300]}'", "a graph ONNX Runtime can load") from error


class OnnxEngine(Engine):
    """Runs a bundle's ONNX file."""

    runtime = "onnx"
    device = "cpu"

    def __init__(self, bundle: Bundle, dtype: str, threads: int) -> None:
        super().__init__(bundle)
        self.dtype = dtype
        self._session: Any = open_session(bundle.verified("onnx", dtype), threads)

    def _infer(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        feed = dict(zip(INPUTS, (input_ids, explain_ids), strict=True))
        return EngineOutput(*self._session.run(list(OUTPUTS), feed))

    def _close(self) -> None:
        self._session = None
