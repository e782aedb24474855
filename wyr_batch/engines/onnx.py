"""ONNX Runtime on the CPU: the default engine."""

from __future__ import annotations

import os
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType
from typing import Any

from wyr_batch.bundle import Bundle
from wyr_batch.engines.base import Engine
from wyr_batch.engines.onnx_cut import cut_model
from wyr_batch.engines.signature import INPUTS, EngineOutput, Int32s, engine_output, outputs_of
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


def open_session(path: Path, threads: int, masked_calls: bool = True) -> Any:
    """Open an ONNX file in ONNX Runtime on the CPU; without masked calls, without the second pass.

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
        model = what_to_load(path, options, masked_calls)
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except ModelError:
        raise
    except Exception as error:  # onnxruntime raises types of its own, all of them about the file
        raise ModelError(path, f"'{str(error)[:300]}'", "a graph ONNX Runtime can load") from error


def what_to_load(path: Path, options: Any, masked_calls: bool) -> str | bytes:
    """Return what a session is made of: the file's name, or its content without the second pass. Raises: ModelError."""
    if masked_calls:
        return str(path)
    # Weights beside the file are looked for there.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    return cut_model(path, outputs_of(masked_calls))


class OnnxEngine(Engine):
    """Runs a bundle's ONNX file."""

    runtime = "onnx"
    device = "cpu"

    def __init__(self, bundle: Bundle, dtype: str, threads: int, masked_calls: bool = True) -> None:
        super().__init__(bundle, masked_calls)
        self.dtype = dtype
        self._session: Any = open_session(bundle.verified("onnx", dtype), threads, masked_calls)

    def _infer(self, input_ids: Int32s, explain_ids: Int32s) -> EngineOutput:
        feed = dict(zip(INPUTS, (input_ids, explain_ids), strict=True))
        names = outputs_of(self.masked_calls)
        return engine_output(dict(zip(names, self._session.run(list(names), feed), strict=True)))

    def _close(self) -> None:
        self._session = None
